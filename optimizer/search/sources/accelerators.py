"""Accelerators of a run: LoRAs that everything is drawn with, and that are not merged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from optimizer.adapters import Adapter, load_adapter
from optimizer.errors import BaseModelError, RecipeError, UsageError
from optimizer.export import AcceleratorRecord, DrawnWith, base_name
from optimizer.merging import Recipe, merge
from optimizer.rendering import RenderSettings
from optimizer.search.config.accelerators import WITH, AcceleratorText, parse_accelerators
from optimizer.search.sources.loras import LoraSource, known_demo_source, title_of, weights_of


@dataclass(frozen=True)
class Accelerator:
    """One accelerator.

    Attributes:
        adapter: content of the LoRA file.
        file: path of the file.
        weight: factor on its change.
    """

    adapter: Adapter
    file: Path
    weight: float

    @property
    def record(self) -> AcceleratorRecord:
        """What the files about a merge say of it."""
        return AcceleratorRecord(name=self.adapter.name, file=self.file.name, sha256=self.adapter.sha256, weight=self.weight)


def load_accelerators(
    texts: Sequence[str], sources: Sequence[LoraSource], *, base: str, allow_unknown: bool = False
) -> tuple[Accelerator, ...]:
    """Reads every accelerator and checks that it goes with the sources.

    Args:
        texts: accelerators as they were given, ``FILE`` or ``FILE:WEIGHT``.
        sources: sources of the run.
        base: model that draws, whose weights some kinds of adapters need; empty for the demo base.
        allow_unknown: skip tensors that are not recognised.

    Raises:
        AdapterError: a file cannot be used.
        BaseModelError: a file needs a weight that the base model lacks.
        UsageError: a file does not exist, is a source or named twice, or is for another family than the sources.
    """
    found: list[Accelerator] = []
    for text in parse_accelerators(texts):
        path = _path(text)
        one = Accelerator(load_adapter(path, allow_unknown=allow_unknown, base=weights_of(base)), path, text.weight)
        _check(one, sources, found)
        found.append(one)
    return tuple(found)


def joined(accelerators: Sequence[Accelerator]) -> Adapter | None:
    """Returns the weighted sum of accelerators, with all their ranks; None if there are none.

    Raises:
        UsageError: the accelerators change weights of different shapes.
    """
    if not accelerators:
        return None
    recipe = Recipe(method="concat", weights=[one.weight for one in accelerators])
    try:
        return merge([one.adapter for one in accelerators], recipe)
    except RecipeError as error:
        names = " and ".join(str(one.file) for one in accelerators)
        remedy = "give accelerators of one base model"
        raise UsageError(f"{names} do not go together: {error.problem}", where=WITH, remedy=remedy) from error


def advice_on_steps(accelerators: Sequence[Accelerator], steps: int | None, used: RenderSettings) -> str:
    """Returns a note for a user of accelerators who gives no number of steps; empty if there is nothing to note.

    Args:
        accelerators: accelerators of the run.
        steps: number of steps that the user gave; None for none.
        used: settings that pictures are drawn with.
    """
    if not accelerators or steps is not None:
        return ""
    names = " and ".join(one.adapter.name for one in accelerators)
    return (
        f"{names}: accelerators want few steps and a guidance near 1, such as --steps 8 --guidance 1; "
        f"without --steps, pictures are drawn in {used.steps} steps, with guidance {used.guidance:g}"
    )


def drawn_with(accelerators: Sequence[Accelerator], eval_base: str, settings: RenderSettings) -> DrawnWith:
    """Returns what the files about a merge say of how pictures were drawn, besides the base model.

    Args:
        accelerators: accelerators of the run.
        eval_base: model that drew, if it was not the base model; else empty.
        settings: settings that pictures were drawn with.
    """
    base = base_name(eval_base) if eval_base else ""
    records = tuple(one.record for one in accelerators)
    return DrawnWith(accelerators=records, base=base, steps=settings.steps, guidance=settings.guidance)


@contextmanager
def about_eval_base(eval_base: str) -> Iterator[None]:
    """Context in which an error about a base model that a source does not fit names the model that draws, if it is another one."""
    try:
        yield
    except BaseModelError as error:
        if not eval_base:
            raise
        where, remedy = f"--eval-base {eval_base}", "name a model of the base model's family and size"
        raise BaseModelError(f"the source {error.where} {error.problem}", where=where, remedy=remedy) from error


def _path(text: AcceleratorText) -> Path:
    if text.demo:
        return known_demo_source(text.file).path
    path = Path(text.file)
    if not path.exists():
        remedy = "check the path; a weight follows a colon, such as lcm.safetensors:0.8"
        raise UsageError("does not exist", where=f"{WITH} {text.file}", remedy=remedy)
    return path


def _check(one: Accelerator, sources: Sequence[LoraSource], others: Sequence[Accelerator]) -> None:
    where, adapter = f"{WITH} {one.file}", one.adapter
    if source := next((source for source in sources if source.sha256 == adapter.sha256), None):
        remedy = "merge it, or draw with it: leave it out of --sources or of --with"
        raise UsageError(f"is the same file as the source {source.name}", where=where, remedy=remedy)
    if any(other.adapter.sha256 == adapter.sha256 for other in others):
        raise UsageError("is named twice", where=where, remedy="name every accelerator once")
    known = next((source for source in sources if source.family != "unknown"), None)
    if known and adapter.base not in ("unknown", known.family):
        problem = f"is for {title_of(adapter)} ({adapter.base_reason}), the sources are for {title_of(known.adapter)}"
        raise UsageError(problem, where=where, remedy="give an accelerator for the base model of the sources")
