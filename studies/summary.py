"""StudySummary: all data that the report shows, in a form that can be saved and loaded to produce an identical report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, AwareDatetime, BaseModel, Field, ValidationError, model_validator

from studies.atomic import write_text
from studies.directory import StudyDirectory, StudyDirectoryError
from studies.records import RECORD, Text, TrialRecord


class SourceInfo(BaseModel):
    """One source of the study.

    Attributes:
        name: short name in tables and recipes.
        role: ``style``, ``character`` or ``concept``.
        trigger: words that invoke it in a prompt; empty for a style that is always active.
        file: file name, without folders.
        sha256: SHA-256 digest of the file, hexadecimal.
        rank_min: lowest rank of its modules.
        rank_max: highest rank of its modules.
        base: family of its base model: ``sd1``, ``sdxl`` …; ``DEMO_BASE`` for a source of the packaged demo world.
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


class AcceleratorInfo(BaseModel):
    """A LoRA that everything was drawn with, and that no merge contains.

    Attributes:
        name: short name.
        file: file name, without folders.
        sha256: SHA-256 digest of the file, hexadecimal.
        weight: factor on its change.
    """

    model_config = RECORD

    name: Text
    file: Text
    sha256: Text
    weight: float = 1.0


class PromptInfo(BaseModel):
    """One prompt with its seed.

    Attributes:
        text: text of the prompt.
        seed: seed of the initial noise, identical in every column.
        kind: ``own`` asks for one source by its trigger, ``joint`` for all sources in one picture.
        source: source that an own prompt asks for; empty for a joint prompt.
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
        kind: rendered model: ``base``, ``source``, ``stack``, ``naive``, ``best`` or another word.
        files: one file name per prompt, relative to the study, with ``/``; empty if there is no picture.
    """

    model_config = RECORD

    label: Text
    kind: str
    files: tuple[str, ...]


class FrontMember(BaseModel):
    """A merge on the Pareto front.

    Attributes:
        number: number of its trial.
        recipe: recipe file, relative to the study.
        sheet: contact sheet of its pictures on the search's prompts, relative to the study; empty if there is none.
        command: command line that exports it.
    """

    model_config = RECORD

    number: int
    recipe: Text
    sheet: Text = ""
    command: Text


ALONE = " alone"
"""Suffix of the label of a single-source baseline."""

_FACTOR = ":factor"
_TOLD = 0.98


class ConfirmedScore(BaseModel):
    """The weakest source's preservation on prompts and seeds that the search did not use.

    Attributes:
        weakest: minimum of the sources' preservation; not the score that the search maximizes. Files of earlier versions name it ``score``.
        ci_low: lower end of its bootstrap interval.
        ci_high: upper end of its bootstrap interval.
        sources: source → preservation on the confirmation pictures; may be empty.
        artifacts: artifact level of the confirmation pictures; None if not known.
        metrics: ``OBJECTIVE:VALUE`` → value on the confirmation pictures, for all objectives besides preservation and artifacts.
        missed: metric, or ``keep:SOURCE``, → amount by which the row misses its constraint; without the constraints that it satisfies.
        drift: how far it changes pictures that ask for no source: 0 is not at all, 1 as much as a source where it is asked for; None if
            that was not measured.
    """

    model_config = RECORD

    weakest: float = Field(validation_alias=AliasChoices("weakest", "score"))
    ci_low: float
    ci_high: float
    sources: dict[Text, float] = Field(default_factory=dict)
    artifacts: float | None = None
    metrics: dict[Text, float] = Field(default_factory=dict)
    missed: dict[Text, float] = Field(default_factory=dict)
    drift: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.ci_low > self.ci_high:
            raise ValueError(f"the confidence interval ends at {self.ci_high} before it begins at {self.ci_low}")
        return self


class Verdict(BaseModel):
    """Result on the confirmation prompts.

    Attributes:
        sentence: finding in one sentence.
        winner: label of the row whose recipe was exported. Files of earlier versions name it ``shipped_label``.
        rows: label → confirmed values, in display order.
        confidence: confidence level of the intervals, e.g. 0.95.
        pictures: number of pictures per row behind the scores; 0 if not known.
        remarks: further sentences: what the search promised, and how sure the lead is. Files of earlier versions have none.
    """

    model_config = RECORD

    sentence: Text
    winner: Text = Field(validation_alias=AliasChoices("winner", "shipped_label"))
    rows: dict[Text, ConfirmedScore]
    confidence: float = Field(default=0.95, gt=0, lt=1)
    pictures: int = 0
    remarks: tuple[Text, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics in the rows, in order."""
        return tuple(dict.fromkeys(name for row in self.rows.values() for name in row.metrics))

    @property
    def discounts(self) -> dict[str, str]:
        """Objectives that discount the score of a merge by 2 % or more, → name of their factor in the rows' metrics."""
        factors = [name for name in self.metrics if name.endswith(_FACTOR)]
        merges = [row.metrics for label, row in self.rows.items() if not label.endswith(ALONE)]
        told = [name for name in factors if any(metrics.get(name, 1.0) <= _TOLD for metrics in merges)]
        return {name.removesuffix(_FACTOR): name for name in told}

    @model_validator(mode="after")
    def _names_a_row(self) -> Self:
        if self.winner not in self.rows:
            raise ValueError(f"{self.winner!r} was shipped and has no row among {', '.join(self.rows) or 'none'}")
        return self


DEMO_BASE = "demo"
"""Name of the packaged demo base in a summary."""


class StudySummary(BaseModel):
    """Data of one study for the report.

    Attributes:
        title: heading of the report.
        version: version of the software that ran the study.
        created: start time of the study.
        finished: end time of the study; None while it runs or after an interruption.
        kind: kind of the sources and the result: LoRAs, or full models.
        pipeline: name of the diffusers pipeline class that loads the base or the result; empty if not known.
        base: base model, a path or an identifier; empty if full models are merged with each other.
        eval_base: model that drew the pictures, a path or an identifier; empty if the base model did.
        accelerators: LoRAs that everything was drawn with, beside base, sources and merges.
        steps: number of denoising steps of the pictures; None if not recorded.
        guidance: classifier-free guidance scale of the pictures; None if not recorded.
        sources: sources, in the order of the recipes' weights.
        prompts: prompts of the picture grid.
        columns: pictures, one column per model.
        trials: all trials, failed ones included.
        baselines: number of baseline trials, which are independent of the budget.
        budget: number of recipes to try besides the baselines; None if the run was limited by time only.
        best_number: number of the exported or currently best trial; None if no trial is complete.
        verdict: result of the confirmation; None before it.
        file: exported file or model folder, relative to the study; empty if there is none yet.
        comfyui_only: whether the exported file has key names that only ComfyUI reads.
        environment: versions and device of the run.
        command: command line that reproduces the study.
        resume_command: command line that resumes it; empty if it is finished.
        warnings: warnings for the user, one sentence each.
        metrics: metrics of the user → rule, ``weight 0.5``, ``>= 0.2`` or ``<= 3``; empty for a column.
        priorities: source → priority in the score; empty if all are equal.
        targets: source → smallest share that a merge may keep of it.
        front: members of the Pareto front, by descending score; empty if the search was for the best score only.
    """

    model_config = RECORD

    title: Text
    version: Text
    created: AwareDatetime
    finished: AwareDatetime | None = None
    kind: Literal["lora", "model"] = "lora"
    pipeline: Text = ""
    base: Text
    eval_base: Text = ""
    accelerators: tuple[AcceleratorInfo, ...] = ()
    steps: int | None = None
    guidance: float | None = None
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
    metrics: dict[Text, Text] = Field(default_factory=dict)
    priorities: dict[Text, float] = Field(default_factory=dict)
    targets: dict[Text, float] = Field(default_factory=dict)
    front: tuple[FrontMember, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sources, in order."""
        return tuple(s.name for s in self.sources)

    @property
    def constraints(self) -> dict[str, str]:
        """Constraints by the name of the metric, as text: ``>= 0.2``."""
        return {name: rule for name, rule in self.metrics.items() if rule[:1] in ("<", ">")}

    @property
    def demands(self) -> list[str]:
        """What a merge has to do to be exported, in words: constraints on metrics, and shares to keep."""
        rules = [f"{name} {rule}" for name, rule in self.constraints.items()]
        kept = [f"keeps {share:g} of {name}" for name, share in self.targets.items()]
        return [*([f"satisfies {' and '.join(rules)}"] if rules else []), *kept]

    @property
    def beside(self) -> str:
        """The accelerators and their weights in words: ``lcm at 1 and turbo at 0.5``; empty if there are none."""
        return " and ".join(f"{one.name} at {one.weight:g}" for one in self.accelerators)

    @property
    def zero(self) -> str:
        """Description of the reference that counts as preservation 0."""
        return "the base model" if self.base else "what the other models draw in its place"

    @property
    def best(self) -> TrialRecord | None:
        """Trial with the number ``best_number``, or None."""
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
        complete = {t.number for t in self.trials if t.evaluation}
        for member in self.front:
            if member.number not in complete:
                yield f"trial {member.number} is on the front and not among the complete trials"
        if len(set(numbers)) < len(numbers):
            yield "two trials have one number"
        if self.best_number is not None and (self.best is None or self.best.evaluation is None):
            yield f"trial {self.best_number} is named as the best and is not among the complete trials"


def save_summary(summary: StudySummary, directory: StudyDirectory | str | Path) -> Path:
    """Writes ``summary.json`` atomically and returns its path; raises OSError if the study cannot be written."""
    study = directory if isinstance(directory, StudyDirectory) else StudyDirectory(directory)
    write_text(study.summary, summary.model_dump_json(indent=1) + "\n")
    return study.summary


def load_summary(directory: StudyDirectory | str | Path) -> StudySummary:
    """Reads ``summary.json``.

    Raises:
        StudyDirectoryError: the file does not exist or is not a valid summary.
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
