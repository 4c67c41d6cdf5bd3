"""The report in a real browser: silent, self-contained, sortable, and never wider than the window."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studies import write_report
from tests.studies.chromium import EXECUTABLE, Page, browser
from tests.studies.samples import HOSTILE, LONG, SOURCES, sample

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(EXECUTABLE is None, reason="chromium was not found on the PATH"),
]

CASES: dict[str, dict[str, Any]] = {
    "two sources, 64 px": {},
    "four sources, 512 px": {"names": SOURCES, "size": 512},
    "interrupted": {"finished": False, "count": 17},
    "hostile": {"names": ("neon" + HOSTILE, LONG, LONG[::-1]), "hostile": HOSTILE, "size": 16},
}
COLUMN = "[...document.querySelectorAll('.trials tbody tr')].map(r => r.cells[{}].dataset.value ?? null)"
SHOWN = "[...document.querySelectorAll('.trials tbody tr')].filter(r => r.offsetParent).length"
WIDER = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .grid-frame, dialog, svg'))
  .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp("study") for name in CASES}
    return {name: write_report(sample(folders[name], **options), folders[name]) for name, options in CASES.items()}


@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize("case", CASES)
def test_fits_the_window_without_errors_or_requests(page: Page, reports: dict[str, Path], case: str, width: int) -> None:
    page.open(reports[case], width, phone=width == 390, dark=width == 820)
    assert page.run("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert page.run(WIDER) == []
    assert page.errors == []
    foreign = [url for url in page.requests if not url.startswith("data:image/webp;base64,")]
    assert foreign == [reports[case].resolve().as_uri()]


def test_errors_and_requests_would_be_noticed(page: Page, tmp_path: Path) -> None:
    bad = "<body><script>console.error('a'); nothing()</script><img src='http://127.0.0.1:9/x.png'><p style='width:900px'>wide</p>"
    (tmp_path / "bad.html").write_text(bad)
    page.open(tmp_path / "bad.html", 390, phone=True)
    assert len(page.errors) >= 2
    assert any("127.0.0.1" in url for url in page.requests)
    assert page.run("document.documentElement.scrollWidth") > 390


def test_injected_script_is_stopped_by_the_policy(page: Page, reports: dict[str, Path], tmp_path: Path) -> None:
    """Should an escape ever be forgotten, the policy still stands."""
    text = reports["interrupted"].read_text(encoding="utf-8")
    (tmp_path / "report.html").write_text(
        text.replace("</main>", "<script>window.stolen = 1</script><img src=x onerror='stolen=2'></main>")
    )
    page.open(tmp_path / "report.html", 1440)
    assert page.run("window.stolen ?? null") is None
    assert page.errors


def test_clicking_a_header_sorts(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["two sources, 64 px"], 1440)
    header = ".trials thead th:nth-child(4)"
    for order, sign in (("descending", -1), ("ascending", 1)):
        page.click(f"{header} button")
        assert page.run(f"document.querySelector('{header}').getAttribute('aria-sort')") == order
        values = page.run(COLUMN.format(3))
        assert values[-2:] == [None, None], "failed trials come last"
        numbers = [float(v) for v in values[:-2]]
        assert numbers == sorted(numbers, key=lambda v: sign * v)
    assert page.run("document.querySelectorAll('th[aria-sort=ascending], th[aria-sort=descending]').length") == 1


def test_sorting_works_from_the_keyboard(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["two sources, 64 px"], 1440)
    page.run("document.querySelector('.trials thead th button').focus()")
    page.press("Enter")
    numbers = [int(v) for v in page.run(COLUMN.format(0))]
    assert numbers == sorted(numbers, reverse=True)


def test_filter_shows_the_failed_trials(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["two sources, 64 px"], 1440)
    shown = []
    for choice in ("failed", "complete", "all"):
        page.click(f"input[value={choice}]")
        shown.append(page.run(SHOWN))
    assert shown == [2, 28, 30]


def test_a_mark_in_a_chart_leads_to_its_trial(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["two sources, 64 px"], 1440)
    page.click(".wide .mark[data-trial='9']")
    assert page.run("document.querySelector('.trials .found').id") == "trial-9"


def test_pictures_enlarge_and_flip_in_place(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["two sources, 64 px"], 1440)
    label = "document.querySelector('#viewer strong').textContent"
    page.click(".zoom")
    assert page.run("document.querySelector('#viewer').open")
    seen = [page.run(label)]
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowLeft"):
        page.press(key)
        seen.append(page.run(label))
    assert seen == ["base", "neon alone", "robot alone", "neon alone", "base", "best"]
    assert page.run("getComputedStyle(document.querySelector('#viewer img')).imageRendering") == "pixelated"
    page.press("Escape")
    assert not page.run("document.querySelector('#viewer').open")


def test_copying_gives_the_text_or_selects_it(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["interrupted"], 1440)
    page.click("#verdict .copy")
    said = page.run("new Promise(done => setTimeout(() => done(document.querySelector('#verdict .copy').textContent), 200))")
    assert said in ("Copied", "Selected")
    if said == "Selected":
        assert page.run("getSelection().toString()") == "optimize resume runs/first"


def test_the_header_row_sticks(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["four sources, 512 px"], 390, phone=True)
    gap = """(() => { const f = document.querySelector('.grid-frame'); f.scrollTo(200, 900);
      return document.querySelector('.grid thead th').getBoundingClientRect().top - f.getBoundingClientRect().top; })()"""
    assert abs(page.run(gap)) < 2
    assert page.run("document.querySelector('.grid-frame').scrollTop") > 500


def test_schemes_differ_and_text_can_be_read(page: Page, reports: dict[str, Path]) -> None:
    """Contrast of text and quiet text with the paper is at least 4.5 : 1 (WCAG 2.2, 1.4.3) in both schemes."""
    papers = set()
    for dark in (False, True):
        page.open(reports["two sources, 64 px"], 1440, dark=dark)
        names = ["--paper", "--ink", "--quiet", "--best", "--bad", "--naive", "--stack", "--source", "--recipe"]
        script = f"{json.dumps(names)}.map(n => getComputedStyle(document.documentElement).getPropertyValue(n).trim())"
        paper, *inks = page.run(script)
        papers.add(paper)
        assert all(contrast(paper, ink) >= 4.5 for ink in inks)
    assert len(papers) == 2


def contrast(a: str, b: str) -> float:
    """WCAG's contrast ratio of two colours of the form #rrggbb."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)
