"""StudySummary: all that the report shows, as plain data that can be saved, read again and turned into the same report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, Field, ValidationError, model_validator

from studies.atomic import write_text
from studies.directory import StudyDirectory, StudyDirectoryError
from studies.records import RECORD, Text, TrialRecord


class SourceInfo(BaseModel):
    """One source as it was given.

    Attributes:
        name: its short name in tables and recipes.
        role: ``style``, ``character`` or ``concept``.
        trigger: the words that call it; empty for a style that is always on.
        file: the file's name, without folders.
        sha256: hex digest of the file.
        rank_min: lowest rank of its modules.
        rank_max: highest rank of its modules.
        base: family of its base model: ``sd1``, ``sdxl`` …
    """

    model_config = RECORD

    name: Text
    role: Text
    trigger: Text = ""
    file: Text = ""
    sha256: Text = ""
    rank_min: int = 0
    rank_max: int = 0
    base: Text = "unknown"

    @property
    def ranks(self) -> str:
        """The ranks as text: ``16`` or ``4 to 32``; empty if not known."""
        if not self.rank_max:
            return ""
        return str(self.rank_max) if self.rank_min == self.rank_max else f"{self.rank_min} to {self.rank_max}"


class PromptInfo(BaseModel):
    """One prompt with its seed.

    Attributes:
        text: the prompt.
        seed: seed of the starting noise, the same in every column.
        kind: ``own`` asks for one source by its trigger, ``joint`` for all sources in one picture.
        source: the source that an own prompt asks for; empty for a joint prompt.
    """

    model_config = RECORD

    text: Text
    seed: int
    kind: Literal["own", "joint"]
    source: Text = ""


class PictureColumn(BaseModel):
    """The pictures of one model on all prompts.

    Attributes:
        label: heading of the column.
        kind: what was rendered: ``base``, ``source``, ``stack``, ``naive``, ``best`` or another word.
        files: one file name per prompt, relative to the study, with ``/``; empty where no picture was made.
    """

    model_config = RECORD

    label: Text
    kind: str
    files: tuple[str, ...]


class ConfirmedScore(BaseModel):
    """A score on prompts and seeds that the search never saw.

    Attributes:
        score: the minimum over the sources of their preservation.
        ci_low: lower end of its confidence interval.
        ci_high: upper end of its confidence interval.
        sources: source → its preservation on the same pictures; may be empty.
        artifacts: artifact level of the same pictures; None if not known.
    """

    model_config = RECORD

    score: float
    ci_low: float
    ci_high: float
    sources: dict[Text, float] = Field(default_factory=dict)
    artifacts: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.ci_low > self.ci_high:
            raise ValueError(f"the confidence interval ends at {self.ci_high} before it begins at {self.ci_low}")
        return self


class Verdict(BaseModel):
    """What was found on the confirmation prompts.

    Attributes:
        sentence: the finding in one sentence.
        shipped_label: the row whose recipe was exported.
        rows: label → confirmed score, in the order in which to show them.
        confidence: of the intervals, e.g. 0.95.
        pictures: number of pictures per row behind the scores; 0 if not known.
    """

    model_config = RECORD

    sentence: Text
    shipped_label: Text
    rows: dict[Text, ConfirmedScore]
    confidence: float = Field(default=0.95, gt=0, lt=1)
    pictures: int = 0

    @model_validator(mode="after")
    def _shipped(self) -> Self:
        if self.shipped_label not in self.rows:
            raise ValueError(f"{self.shipped_label!r} was shipped and has no row among {', '.join(self.rows) or 'none'}")
        return self


DEMO_BASE = "demo"
"""What a summary calls the base inside this package."""


class StudySummary(BaseModel):
    """One study, ready to be shown.

    Attributes:
        title: heading of the report.
        version: version of the software that ran the study.
        created: when the study was started.
        finished: when it was finished; None while it runs or after an interruption.
        kind: what the sources are, and the result is: LoRAs, or full models.
        base: the base model, a path or an identifier; empty where full models are merged with each other.
        sources: the sources, in the order of the recipes' weights.
        prompts: the prompts of the picture grid.
        columns: the pictures, one column per model.
        trials: all trials, failed ones included.
        baselines: number of trials that every study begins with, whatever its budget.
        budget: number of recipes to try beyond them; None if the run was bounded by time only.
        best_number: the trial that was exported, or is ahead so far; None if no trial is complete.
        verdict: the finding; None until the finalists were confirmed.
        file: the exported file, or the model's folder, relative to the study; empty if there is none yet.
        comfyui_only: the exported file has names that only ComfyUI reads.
        environment: what it ran on: versions, device.
        command: the command line that reproduces the study.
        resume_command: the command line that continues it; empty if it is finished.
        warnings: everything that the user should know, one sentence each.
    """

    model_config = RECORD

    title: Text
    version: Text
    created: AwareDatetime
    finished: AwareDatetime | None = None
    kind: Literal["lora", "model"] = "lora"
    base: Text
    sources: tuple[SourceInfo, ...]
    prompts: tuple[PromptInfo, ...] = ()
    columns: tuple[PictureColumn, ...] = ()
    trials: tuple[TrialRecord, ...] = ()
    baselines: int = 0
    budget: int | None = None
    best_number: int | None = None
    verdict: Verdict | None = None
    file: Text = ""
    comfyui_only: bool = False
    environment: dict[Text, Text] = Field(default_factory=dict)
    command: Text = ""
    resume_command: Text = ""
    warnings: tuple[Text, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The sources' names, in order."""
        return tuple(s.name for s in self.sources)

    @property
    def zero(self) -> str:
        """What shows nothing of a source, in words."""
        return "the base model" if self.base else "what the other models draw in its place"

    @property
    def best(self) -> TrialRecord | None:
        """The trial of ``best_number``."""
        return next((t for t in self.trials if t.number == self.best_number), None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problem = next(self._problems(), None)
        if problem:
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        if len(set(self.names)) < len(self.names):
            yield f"two sources have one name among {', '.join(self.names)}"
        for column in self.columns:
            if len(column.files) != len(self.prompts):
                yield f"the column {column.label!r} has {len(column.files)} pictures for {len(self.prompts)} prompts"
        for prompt in self.prompts:
            if prompt.kind == "own" and prompt.source not in self.names:
                yield f"the prompt {prompt.text!r} asks for the source {prompt.source!r}, which is none of {', '.join(self.names)}"
        numbers = [t.number for t in self.trials]
        if len(set(numbers)) < len(numbers):
            yield "two trials have one number"
        if self.best_number is not None and (self.best is None or self.best.evaluation is None):
            yield f"trial {self.best_number} is named as the best and is not among the complete trials"


def save_summary(summary: StudySummary, directory: StudyDirectory | str | Path) -> Path:
    """Write ``summary.json`` atomically and return its path; raises OSError if the study cannot be written."""
    study = directory if isinstance(directory, StudyDirectory) else StudyDirectory(directory)
    write_text(study.summary, summary.model_dump_json(indent=1) + "\n")
    return study.summary


def load_summary(directory: StudyDirectory | str | Path) -> StudySummary:
    """Read ``summary.json``.

    Raises:
        StudyDirectoryError: there is none, or it does not hold a summary.
    """
    study = directory if isinstance(directory, StudyDirectory) else StudyDirectory(directory)
    try:
        return StudySummary.model_validate_json(study.summary.read_bytes())
    except OSError as error:
        remedy = "resume the study, which writes it again"
        raise StudyDirectoryError(f"cannot be read ({error.strerror or error})", where=study.summary, remedy=remedy) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        remedy = "move the file away and resume the study, which writes it again"
        raise StudyDirectoryError(f"is not a summary ({place}: {first['msg']})", where=study.summary, remedy=remedy) from error
