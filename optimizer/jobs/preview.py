"""Previews: pictures of a merge beside base, sources and stack, or at a grid of weights, without scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from optimizer.adapters import clean_name
from optimizer.errors import UsageError
from optimizer.export import base_name, next_free
from optimizer.jobs.base_renderer import Drawing
from optimizer.jobs.preview_plan import PreviewOptions, PreviewPlan, Shown, plan_preview
from optimizer.merging import Router
from optimizer.rendering import AnyRenderer, RenderSettings
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.memory.oom import Note
from optimizer.rendering.prompts import asked_by_text
from optimizer.search.images.labelled_sheet import Band, labelled_sheet
from optimizer.search.images.picture_text import picture_text
from optimizer.search.sources.accelerators import about_eval_base
from optimizer.search.sources.lora_mixer import LoraMixer
from studies.atomic import replacing

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Preview:
    """A preview that was written.

    Attributes:
        sheet: file with all pictures.
        pictures: one file for each picture; empty if none were asked for.
        shown: names of what is shown, in the order of the pictures.
        rows: number of rows of each prompt.
        prompts: number of prompts, each seed counted.
    """

    sheet: Path
    pictures: tuple[Path, ...]
    shown: tuple[str, ...]
    rows: int
    prompts: int


def write_preview(
    options: PreviewOptions, settings: RenderSettings, *, device: str, out: Path, pictures: Path | None, note: Note, tick: Tick
) -> Preview:
    """Draws a preview, and writes it.

    Args:
        options: what is drawn.
        settings: render settings.
        device: torch device, or ``auto``.
        out: PNG file of the sheet; a name that is taken gets the next version.
        pictures: folder for each picture by itself, which is created; None for none.
        note: called with one line for each warning.
        tick: called with the number of pictures finished, and of all.

    Raises:
        UsageError: an option is invalid, or a file cannot be used or written.
        BaseModelError: the base cannot be loaded, or a file does not fit it.
        TrialError: a picture contains NaN, or memory does not suffice.
    """
    _check_output(out, pictures)
    plan = plan_preview(options)
    for line in plan.notes:
        note(line)
    renderer = Drawing(options.base, options.eval_base, settings, device, plan.accelerators).renderer(plan.adapters, note)
    with about_eval_base(options.eval_base):
        drawer = _Drawer(plan, renderer, tick)
    drawn = [drawer.draw(shown) for shown in plan.shown]
    sheet = next_free(out)
    with replacing(sheet) as temporary:
        labelled_sheet(list(_bands(plan, drawn))).save(temporary, "PNG")
    model = base_name(options.eval_base or options.base)
    files = tuple(_write_pictures(plan, drawn, renderer, pictures, model)) if pictures else ()
    rows = len(plan.axes[0].values) if len(plan.axes) == 2 else 1
    return Preview(sheet, files, tuple(shown.label for shown in plan.shown), rows, len(plan.prompts))


class _Drawer:
    """Draws what a preview shows.

    Args:
        plan: what is drawn.
        renderer: renderer of the base.
        tick: called with the number of pictures finished, and of all.

    Raises:
        BaseModelError: a source or the file does not fit the base.
    """

    def __init__(self, plan: PreviewPlan, renderer: AnyRenderer, tick: Tick) -> None:
        self._prompts, self._renderer, self._routers = plan.prompts, renderer, plan.routers
        self._file = renderer.fit_adapter(plan.file) if plan.file else None
        self._adapters = [renderer.fit_adapter(source.adapter) for source in plan.sources]
        self._subjects = [source.subject for source in plan.sources]
        self._mixer = LoraMixer(self._adapters, renderer.device, router=self._router)
        self._tick, self._total, self._done = tick, len(plan.shown) * len(plan.prompts), 0

    def draw(self, shown: Shown) -> Tensor:
        """Returns the pictures of all prompts, uint8, (n, 3, height, width)."""
        done = self._done
        found = self._renderer.render(self._prompts, self._candidate(shown), tick=lambda count: self._tick(done + count, self._total))
        self._done += len(found)
        return found

    def _candidate(self, shown: Shown) -> Candidate | None:
        if shown.composed:
            return self._composition()
        if shown.file:
            return self._file
        if shown.source is not None:
            return self._mixer.alone(shown.source)
        return self._mixer.mixed(shown.recipe)[0] if shown.recipe and any(shown.recipe.weights) else None

    def _composition(self) -> Candidate:
        """Returns the composition of the sources that a prompt names by their triggers, or that have none."""
        # Imported here because they import diffusers, which a fake base does not need.
        from optimizer.calibration.live.model import LiveModel
        from optimizer.rendering import Renderer

        assert isinstance(self._renderer, Renderer)
        model = LiveModel.of(self._renderer, self._adapters, self._subjects)
        return model.composed(model.teacher, asked=lambda prompts: torch.tensor([asked_by_text(p.text, self._subjects) for p in prompts]))

    def _router(self, calibration: str) -> Router:
        return next(router for router in self._routers if router.hash == calibration)


def _check_output(out: Path, pictures: Path | None) -> None:
    """Checks, before anything is drawn, that the files can be written; creates the folder of the pictures."""
    if out.suffix.lower() != ".png":
        raise UsageError("is no PNG file's name", where=f"--out {out}", remedy="name a file that ends in .png")
    if not out.parent.is_dir():
        raise UsageError("the directory does not exist", where=f"--out {out}", remedy="create it, or name another file")
    if not os.access(out.parent, os.W_OK):
        raise UsageError("the directory cannot be written", where=f"--out {out}", remedy="name a file elsewhere")
    if pictures:
        try:
            pictures.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot be created: {error.strerror}", where=f"--pictures {pictures}", remedy="name another folder"
            ) from error


def _bands(plan: PreviewPlan, drawn: Sequence[Tensor]) -> Iterator[Band]:
    """Yields the pictures of each prompt, in one row, or in the rows of the first of two axes."""
    for index, prompt in enumerate(plan.prompts):
        pictures, caption = torch.stack([column[index] for column in drawn]), f"{prompt.text}  ·  seed {prompt.seed}"
        if len(plan.axes) == 2:
            above, across = plan.axes
            width = len(across.values)
            rows = tuple((name, pictures[row * width : (row + 1) * width]) for row, name in enumerate(above.labels))
            yield Band(caption, across.labels, rows)
        else:
            yield Band(caption, tuple(shown.label for shown in plan.shown), (("", pictures),))


def _write_pictures(plan: PreviewPlan, drawn: Sequence[Tensor], renderer: AnyRenderer, folder: Path, model: str) -> Iterator[Path]:
    """Writes every picture as a lossless file that says what it shows, and yields its path."""
    height, width = renderer.picture_size
    for (column, shown), (index, prompt) in product(enumerate(plan.shown), enumerate(plan.prompts)):
        text = picture_text(
            prompt, renderer.settings, (width, height), model=model, components=_components(plan, shown), recipe=shown.recipe
        )
        path = next_free(folder / f"{index + 1:02d}-{column + 1:02d}-{clean_name(shown.label)}.png")
        with replacing(path) as temporary:
            Image.fromarray(drawn[column][index].permute(1, 2, 0).numpy()).save(temporary, "PNG", pnginfo=text)
        yield path


def _components(plan: PreviewPlan, shown: Shown) -> dict[str, float]:
    """Returns the LoRAs in a picture by name, with their weights."""
    if shown.file and plan.file:
        return {plan.file.name: 1.0}
    if shown.source is not None:
        return {plan.sources[shown.source].name: 1.0}
    return dict(zip((source.name for source in plan.sources), shown.recipe.weights, strict=True)) if shown.recipe else {}
