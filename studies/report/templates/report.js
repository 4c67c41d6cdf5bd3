"use strict";
document.documentElement.classList.add("js");

/* Tables: click a header to sort. Rows without a value stay last in both directions. */
const sortable = document.querySelector(".trials");
if (sortable) {
  const body = sortable.tBodies[0];
  const headers = [...sortable.tHead.rows[0].cells];
  const key = (row, index, numeric) => {
    const cell = row.cells[index];
    if (!numeric) return cell.textContent.trim() || null;
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  const sort = (header) => {
    const index = headers.indexOf(header);
    const numeric = header.classList.contains("number");
    const opposite = { ascending: "descending", descending: "ascending" };
    const order = opposite[header.getAttribute("aria-sort")] || header.dataset.first;
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row) => [key(row, index, numeric), row]);
    rows.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : sign * compare(a, b)));
    headers.filter((h) => h.hasAttribute("aria-sort")).forEach((h) => h.setAttribute("aria-sort", "none"));
    header.setAttribute("aria-sort", order);
    body.append(...rows.map(([, row]) => row));
  };
  headers.forEach((header) => header.querySelector("button")?.addEventListener("click", () => sort(header)));

  const show = (state) => [...body.rows].forEach((row) => { row.hidden = state !== "all" && row.dataset.state !== state; });
  const choices = [...document.querySelectorAll("input[name=show]")];
  choices.forEach((input) => input.addEventListener("change", () => show(input.value)));

  /* Charts: click a mark to see its trial in the table. */
  document.addEventListener("click", (event) => {
    const mark = event.target.closest(".mark");
    const row = mark && document.getElementById("trial-" + mark.dataset.trial);
    if (!row) return;
    choices[0].click();
    body.querySelectorAll(".found").forEach((other) => other.classList.remove("found"));
    row.classList.add("found");
    row.scrollIntoView({ block: "center" });
  });
}

/* Code: copy, or select where the clipboard is out of reach. */
document.querySelectorAll(".copy").forEach((button) => {
  button.setAttribute("aria-label", "Copy: " + button.dataset.what);
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
});

/* Pictures: enlarge one; the arrow keys flip through its row in the same place. */
const viewer = document.getElementById("viewer");
let row = [];
let place = 0;
const turn = (step) => {
  place = (place + step + row.length) % row.length;
  const source = row[place].querySelector("img");
  const image = viewer.querySelector("img");
  image.src = source.src;
  image.alt = source.alt;
  image.width = source.naturalWidth;
  image.height = source.naturalHeight;
  image.className = source.className;
  viewer.querySelector("strong").textContent = row[place].dataset.label;
  viewer.querySelector("span").textContent = row[place].dataset.prompt;
};
document.querySelectorAll(".zoom").forEach((button) => button.addEventListener("click", () => {
  row = [...(button.closest(".flip") ?? button.closest("tr")).querySelectorAll(".zoom")];
  place = row.indexOf(button);
  turn(0);
  viewer.showModal();
  viewer.focus();
}));
viewer.querySelector(".back").addEventListener("click", () => turn(-1));
viewer.querySelector(".next").addEventListener("click", () => turn(1));
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") turn(-1);
  if (event.key === "ArrowRight") turn(1);
});
viewer.addEventListener("close", () => row[place]?.focus());

/* Paper shows what is folded on the screen. */
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
