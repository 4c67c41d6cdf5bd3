"""``optimize preview``: pictures of LoRAs and merges, without a search."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from optimizer.cli.progress import progress_bar
from optimizer.cli.quiet import hush

if TYPE_CHECKING:
    from optimizer.jobs.preview import Preview


def preview(
    files: tuple[str, ...],
    /,
    *,
    base: str = "",
    prompt: tuple[str, ...] = (),
    seed: int = 0,
    count: int = 1,
    grid: tuple[str, ...] = (),
    sources: tuple[str, ...] = (),
    with_: Annotated[tuple[str, ...], Parameter("--with")] = (),
    eval_base: str = "",
    steps: int | None = None,
    guidance: float | None = None,
    negative: str = "",
    resolution: int | None = None,
    device: str = "auto",
    out: Path = Path("preview.png"),
    pictures: Path | None = None,
    as_json: Annotated[bool, Parameter("--json")] = False,
) -> int:
    """Draw LoRAs side by side: base, each alone, composition, stack and merge, or a merge at a grid of weights.

    The composition adds up, at every step, what each LoRA alone would draw: what a merge should show, and no file can hold.

    optimize preview merged.safetensors --base sdxl/ --prompt "hero person in a forest"

    optimize preview demo:neon demo:octopus --grid neon=0:1.2:0.4 octopus=0:1.2:0.4

    Args:
        files: LoRA files or demo:NAME, or one recipe or merged LoRA, which is drawn beside its sources.
        base: model that the LoRAs were trained on; not needed for demo sources.
        prompt: prompts, each in quotes; by default they are composed of the sources' triggers.
        seed: seed of the first picture of each prompt.
        count: pictures of each prompt, with consecutive seeds.
        grid: weights of one or two sources to draw the merge at, NAME=LOW:HIGH:STEP; the first gives rows, the second columns.
        sources: files or folders that hold the sources of a recipe or merged LoRA.
        with_: accelerator LoRAs to draw everything with, FILE or FILE:WEIGHT.
        eval_base: model of the same family to draw with instead.
        steps: number of denoising steps; by default that of the base model.
        guidance: classifier-free guidance scale; by default that of the base model.
        negative: negative prompt.
        resolution: width and height in pixels; by default that of the base model.
        device: torch device, such as cuda:1 or cpu; auto is a GPU if there is one.
        out: PNG file of the sheet; a name that is taken gets the next version.
        pictures: folder to write each picture to, too, with prompt, settings and recipe in its metadata.
        as_json: print JSON for machines.
    """
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    with errors.status("loading…") if errors.is_terminal else nullcontext():
        from optimizer.jobs.preview import write_preview
        from optimizer.jobs.preview_plan import PreviewOptions
        from optimizer.search.config import Config

    checked = Config.of(seed=seed, steps=steps, guidance=guidance, negative=negative, resolution=resolution, device=device)
    options = PreviewOptions(files, sources, prompt, seed, count, grid, base, eval_base, with_)
    with progress_bar("drawing…", errors) as tick:
        settings = checked.rendering.render_settings()
        found = write_preview(
            options, settings, device=device, out=out, pictures=pictures, tick=tick, note=lambda line: _say(f"note: {line}", errors)
        )
    print(json.dumps(_facts(found)) if as_json else _told(found))
    return 0


def _told(found: Preview) -> str:
    """Returns the lines about a preview for people."""
    what = ", ".join(found.shown) if found.rows == 1 else f"{found.rows} × {len(found.shown) // found.rows} weights"
    what = f"{found.prompts} prompt{'s' if found.prompts != 1 else ''}: {what}"
    return "\n".join(
        [f"sheet     {found.sheet}", f"shows     {what}", *([f"pictures  {found.pictures[0].parent}"] if found.pictures else [])]
    )


def _facts(found: Preview) -> dict[str, object]:
    return {
        "sheet": str(found.sheet),
        "pictures": [str(path) for path in found.pictures],
        "shown": list(found.shown),
        "rows": found.rows,
        "prompts": found.prompts,
    }


def _say(text: str, errors: Console) -> None:
    errors.print(text, soft_wrap=True, markup=False)
