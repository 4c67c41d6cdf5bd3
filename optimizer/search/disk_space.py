"""Disk space: estimates what a run will write and checks that there is room for it, before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from optimizer.adapters import Adapter
from optimizer.errors import UsageError
from optimizer.merging import METHODS, correctable, with_correction
from optimizer.merging.methods.solved import CHECKPOINT, CORRECTION
from optimizer.rendering import PromptSet
from optimizer.rendering.memory.free import amount
from optimizer.search.evaluation.session import Session
from studies import StudyDirectory

# PNG reduces a picture to about 70 % of its raw size. A record with its recipe, journal lines and table rows takes less than _RECORD bytes.
_PNG, _RECORD, _SLACK = 0.7, 20_000, 16_000_000
# A contact sheet has at most 1280 × 1280 pixels; WebP needs 1/15 to 1/10 byte per pixel.
_SHEET = 160_000


@dataclass(frozen=True)
class Need:
    """Disk space that a run needs, in bytes.

    Attributes:
        pictures: pictures of baselines, trials and confirmation.
        sheets: contact sheets of the trials.
        records: evaluations, journal and tables.
        export: the exported file or model, and the temporary files beside it while it is written.
        routers: routers of solved merges.
    """

    pictures: int
    sheets: int
    records: int
    export: int
    routers: int = 0

    @property
    def total(self) -> int:
        """Total size with a safety margin of 10 % plus a constant."""
        return int(1.1 * (self.pictures + self.sheets + self.records + self.export + self.routers)) + _SLACK


def check_space(session: Session, prompts: PromptSet, unseen: PromptSet, directory: StudyDirectory) -> str:
    """Returns a line that states the required and the available disk space.

    Args:
        session: evaluation session of the run.
        prompts: prompts of the search.
        unseen: prompts of the confirmation.
        directory: study directory; it need not exist.

    Raises:
        UsageError: the required space exceeds the available space.
    """
    needed = need(session, prompts, unseen, directory).total
    left = max(needed - _written(directory), _SLACK)
    free = shutil.disk_usage(_existing(directory.path)).free
    if free < left:
        remedy = "free some space, choose another --out, or keep fewer pictures (--keep-images)"
        raise UsageError(f"the run needs about {amount(left)} of disk, {amount(free)} are free", where="--out", remedy=remedy)
    return f"this run needs about {amount(left)} of disk, {amount(free)} are free"


def need(session: Session, prompts: PromptSet, unseen: PromptSet, directory: StudyDirectory) -> Need:
    """Returns what a run writes from start to end; with a database, only what it writes on this machine."""
    config, sources = session.config, len(session.sources)
    places, keep, budget = config.places, config.output.keep_images, config.search.budget
    baselines = sources + 2
    kept = {"all": baselines + budget, "best": baselines + config.protocol.finalists + places.workers, "none": 0}[keep]
    searched = 0 if places.storage else (1 + sources + kept) * len(prompts)
    confirmed = (1 + sources + 4) * len(unseen)
    trials = baselines + budget
    sheets = 0 if places.storage or keep == "none" else trials * min(_SHEET, len(prompts) * _picture(session, directory))
    pictures = (searched + confirmed) * _picture(session, directory)
    space = session.space(budget)
    texts = correctable(session.renderer.shapes)
    routers = 0 if places.storage else _routers(space.methods, session.ensemble.adapters, texts)
    return Need(pictures, sheets, trials * _RECORD, session.ensemble.export_bytes(space), routers)


def _routers(methods: Sequence[str], adapters: Sequence[Adapter], texts: Mapping[str, tuple[int, int]]) -> int:
    """Returns the size of the routers of all methods that are solved, one a checkpoint, in bytes; a copy of one lies beside the winner."""
    solved = [METHODS[method] for method in methods if METHODS[method].solved]
    each = [_router(adapters, int(method.starting_values().get(CORRECTION.name, 0)), texts) for method in solved]
    counts = [len(CHECKPOINT.choices) if method.reads(CHECKPOINT.name) else 1 for method in solved]
    return max(each, default=0) + sum(size * count for size, count in zip(each, counts, strict=True))


def _router(adapters: Sequence[Adapter], correction: int, texts: Mapping[str, tuple[int, int]]) -> int:
    """Returns the size of a router of full matrices, between the sources and a correction of some rank, in bytes."""
    whole = with_correction(adapters, correction, texts)
    paths = {path for adapter in whole for path in adapter.modules}
    ranks = (sum(adapter.modules[path].rank for adapter in whole if path in adapter.modules) for path in paths)
    return sum(rank**2 for rank in ranks) * torch.float32.itemsize


def _picture(session: Session, directory: StudyDirectory) -> int:
    """Returns the size of a picture in bytes: measured on an existing picture of the study, else estimated."""
    first = next(iter(sorted((directory.images / "baselines").glob("*/000.png"))), None)
    if first is not None:
        return first.stat().st_size
    height, width = session.renderer.picture_size
    return int(height * width * 3 * _PNG)


def _written(directory: StudyDirectory) -> int:
    return sum(p.stat().st_size for p in directory.path.rglob("*") if p.is_file()) if directory.path.is_dir() else 0


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.absolute().parents) if p.exists())
