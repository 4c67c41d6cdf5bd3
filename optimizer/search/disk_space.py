"""Disk: what a run will write, and whether there is room for it, before anything is written."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from optimizer.errors import UsageError
from optimizer.rendering import PromptSet
from optimizer.rendering.memory.free import amount
from optimizer.search.evaluation.session import Bench
from studies import StudyDirectory

# PNG saves about a third of a picture; a record with its recipe and its lines in journal and tables takes less than so many bytes.
_PNG, _RECORD, _SLACK = 0.7, 20_000, 16_000_000
# A contact sheet has up to 1280 × 1280 pixels; as WebP it takes a fifteenth to a tenth of a byte a pixel.
_SHEET = 160_000


@dataclass(frozen=True)
class Need:
    """What a run writes, in bytes.

    Attributes:
        pictures: of baselines, trials and confirmation.
        sheets: of trials.
        records: evaluations, journal, tables.
        export: the merged file or model, and what lies beside it while it is written.
    """

    pictures: int
    sheets: int
    records: int
    export: int

    @property
    def total(self) -> int:
        """All of it, with some room."""
        return int(1.1 * (self.pictures + self.sheets + self.records + self.export)) + _SLACK


def check_space(bench: Bench, prompts: PromptSet, unseen: PromptSet, directory: StudyDirectory) -> str:
    """One line that says what the run needs and what there is.

    Args:
        bench: of the run.
        prompts: of the search.
        unseen: of the confirmation.
        directory: of the study, which need not exist.

    Raises:
        UsageError: there is less space than what the run needs.
    """
    needed = need(bench, prompts, unseen, directory).total
    left = max(needed - _written(directory), _SLACK)
    free = shutil.disk_usage(_existing(directory.path)).free
    if free < left:
        remedy = "free some space, choose another --out, or keep fewer pictures (--keep-images)"
        raise UsageError(f"the run needs about {amount(left)} of disk, {amount(free)} are free", where="--out", remedy=remedy)
    return f"this run needs about {amount(left)} of disk, {amount(free)} are free"


def need(bench: Bench, prompts: PromptSet, unseen: PromptSet, directory: StudyDirectory) -> Need:
    """What a run writes from its beginning to its end; of one in a database only what is written on this machine."""
    config, sources = bench.config, len(bench.sources)
    baselines = sources + 2
    kept = {"all": baselines + config.budget, "best": baselines + config.finalists + config.workers, "none": 0}[config.keep_images]
    searched = 0 if config.storage else (1 + sources + kept) * len(prompts)
    confirmed = (1 + sources + 4) * len(unseen)
    trials = baselines + config.budget
    sheets = 0 if config.storage or config.keep_images == "none" else trials * min(_SHEET, len(prompts) * _picture(bench, directory))
    pictures = (searched + confirmed) * _picture(bench, directory)
    return Need(pictures, sheets, trials * _RECORD, bench.ensemble.export_bytes(bench.space(config.budget)))


def _picture(bench: Bench, directory: StudyDirectory) -> int:
    """Bytes of a picture: of one of this study where there is one."""
    first = next(iter(sorted((directory.images / "baselines").glob("*/000.png"))), None)
    if first is not None:
        return first.stat().st_size
    height, width = bench.renderer.picture_size
    return int(height * width * 3 * _PNG)


def _written(directory: StudyDirectory) -> int:
    return sum(p.stat().st_size for p in directory.path.rglob("*") if p.is_file()) if directory.path.is_dir() else 0


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.absolute().parents) if p.exists())
