"""The report's page as data: selected, ordered and worded for the template."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath

import yaml

from studies.directory import StudyDirectory
from studies.frames import source_weights
from studies.records import TrialRecord, told_numbers
from studies.report import figures
from studies.report.figures import Figure, row_tone, tone_of
from studies.report.front import FrontRow, front_figure, front_rows
from studies.report.parameters import parameters_text, told_parameters, with_unit
from studies.report.pictures import Picture, inline_picture
from studies.report.svg import decimal
from studies.summary import DEMO_BASE, PictureColumn, PromptInfo, StudySummary

_SINGLE = ".safetensors"
_TONES = {"base", "source", "stack", "naive", "best"}


@dataclass(frozen=True)
class Cell:
    """One picture of the grid, with the label and tone of its column."""

    label: str
    tone: str
    picture: Picture


@dataclass(frozen=True)
class PromptRow:
    """A prompt with one cell per column."""

    prompt: PromptInfo
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class PromptGroup:
    """The own prompts of one source, or the joint prompts."""

    heading: str
    rows: tuple[PromptRow, ...]


@dataclass(frozen=True)
class TrialRow:
    """One row of the table of trials; values that are missing or not finite are None."""

    record: TrialRecord
    tone: str
    name: str
    failed: bool
    note: str
    score: float | None = None
    preservation: tuple[float | None, ...] = ()
    artifacts: float | None = None
    seconds: float | None = None
    method: str = ""
    parameters: str = ""
    rank: str = ""
    weights: str = ""
    solving: float = 0.0
    metrics: tuple[float | None, ...] = ()

    @property
    def infeasible(self) -> bool:
        """Whether it misses a constraint or a target."""
        return self.record.evaluation is not None and not self.record.evaluation.feasible

    @property
    def state(self) -> str:
        """What became of the trial, in one word."""
        pruned = self.record.evaluation is not None and self.record.evaluation.pruned
        return "failed" if self.failed else "infeasible" if self.infeasible else "pruned" if pruned else "complete"


@dataclass(frozen=True)
class Page:
    """All data that the template prints besides the summary itself."""

    headline: str
    facts: tuple[tuple[str, str], ...]
    groups: tuple[PromptGroup, ...]
    verdict_tones: dict[str, str]
    verdict_figure: Figure | None
    preservation: Figure | None
    history: Figure | None
    trade_offs: list[Figure]
    weights: list[Figure]
    recipe: dict[str, object]
    recipe_yaml: str
    trials: tuple[TrialRow, ...]
    failed: int
    warnings: tuple[str, ...]
    snippet: str
    tag: str
    single: bool = False
    columns: Sequence[PictureColumn] = field(default_factory=tuple)
    shows_artifacts: bool = False
    front: tuple[FrontRow, ...] = ()
    front_figure: Figure | None = None
    barred: str = ""
    priorities: str = ""

    @property
    def has_parameters(self) -> bool:
        """Whether a trial has parameters to show."""
        return any(row.parameters for row in self.trials)

    @property
    def has_notes(self) -> bool:
        """Whether a trial has an error to show."""
        return any(row.note for row in self.trials)


def build_page(summary: StudySummary, study: StudyDirectory) -> Page:
    """Returns the contents of the report, selected and worded.

    Args:
        summary: summary of the study.
        study: study directory, which contains the pictures.

    Raises:
        ValueError: a recipe does not fit the sources; the message names the trial.
    """
    groups, front = tuple(_groups(summary, study)), front_rows(summary, study)
    told = told_parameters(r.evaluation.recipe for r in summary.trials if r.evaluation)
    trials = tuple(_trial_row(record, summary, told) for record in sorted(summary.trials, key=lambda r: r.number))
    verdict = summary.verdict
    recipe = summary.best.evaluation.recipe if summary.best and summary.best.evaluation else {}
    return Page(
        headline=headline(summary),
        facts=tuple(_facts(summary, trials)),
        groups=groups,
        verdict_tones={name: row_tone(name, verdict) for name in verdict.rows} if verdict else {},
        verdict_figure=figures.verdict_figure(summary),
        preservation=figures.preservation_figure(summary),
        history=figures.history_figure(summary),
        trade_offs=figures.trade_off_figures(summary),
        weights=figures.weight_figures(summary),
        recipe={
            k: with_unit(k, recipe[k]) for k in ("method", "density", "checkpoint", "rank", "dtype", "seed") if recipe.get(k) is not None
        },
        recipe_yaml=yaml.safe_dump(_plain(recipe), sort_keys=False, allow_unicode=True, width=100) if recipe else "",
        trials=trials,
        failed=sum(row.failed for row in trials),
        warnings=(*summary.warnings, *_picture_problems(groups), *_sheet_problems(front)),
        snippet=loading_snippet(summary),
        tag=f"<lora:{PurePosixPath(summary.file).stem}:1>" if summary.file else "",
        single=summary.file.endswith(_SINGLE),
        columns=summary.columns,
        front=front,
        front_figure=front_figure(summary),
        barred=_barred(summary),
        priorities=told_numbers(summary.priorities),
        shows_artifacts=any(row.artifacts is not None for row in (summary.verdict.rows.values() if summary.verdict else ())),
    )


def headline(summary: StudySummary) -> str:
    """Returns the first sentence of the report: the verdict, or the progress of a study without one."""
    if summary.verdict:
        return summary.verdict.sentence
    state = "The study is finished and nothing was confirmed" if summary.finished else "No verdict yet, the study has not finished"
    best = summary.best
    if best is None or best.evaluation is None:
        return f"{state}; no trial is complete."
    if not best.evaluation.feasible:
        return f"{state}; no merge {' and '.join(summary.demands)}."
    name = f"trial {best.number}" + (f" ({best.label})" if best.label else "")
    return f"{state}; {name} is ahead with a score of {decimal(best.evaluation.score, 2)} on the search's prompts."


def _barred(summary: StudySummary) -> str:
    """Returns what a recipe that is never exported does, in words; empty if every recipe may be exported."""
    missed = [f"misses {' or '.join(f'{name} {rule}' for name, rule in summary.constraints.items())}"] if summary.constraints else []
    return " or ".join([*missed, *(f"keeps less than {share:g} of {name}" for name, share in summary.targets.items())])


def loading_snippet(summary: StudySummary) -> str:
    """Returns Python code that loads the exported file with diffusers; empty if there is no file yet, or if it is not known which class
    reads it."""
    if not summary.file:
        return ""
    if summary.kind == "model":
        return _model_snippet(summary)
    prompt, seed = _example(summary)
    demo = summary.base == DEMO_BASE and not summary.eval_base
    base = "demo_base()" if demo else repr(summary.eval_base or summary.base)
    names, settings = ("GUIDANCE, STEPS, ", ", num_inference_steps=STEPS, guidance_scale=GUIDANCE") if demo else ("", "")
    if (summary.accelerators or summary.eval_base) and summary.steps is not None and summary.guidance is not None:
        names, settings = "", f", num_inference_steps={summary.steps}, guidance_scale={summary.guidance}"
    return "\n".join(
        [
            "import torch",
            "from diffusers import DiffusionPipeline",
            *([f"from studies.demo.world import {names}demo_base"] if demo else []),
            "",
            f"pipe = DiffusionPipeline.from_pretrained({base})",
            *_lora_lines(summary),
            f"image = pipe({prompt!r}, generator=torch.Generator().manual_seed({seed}){settings}).images[0]",
        ]
    )


def _lora_lines(summary: StudySummary) -> list[str]:
    """Returns the lines of code that load the exported LoRA, and beside it the accelerators that it was judged with."""
    file, beside = PurePosixPath(summary.file), summary.accelerators
    if not beside:
        return [_lora_line(str(file.parent), file.name)]
    names = ["merge", *(f"accelerator_{number}" for number in range(1, len(beside) + 1))]
    files = [(str(file.parent), file.name), *(("path/to", one.file) for one in beside)]
    lines = [_lora_line(*place, f", adapter_name={name!r}") for place, name in zip(files, names, strict=True)]
    return [*lines, f"pipe.set_adapters({names!r}, {[1.0, *(one.weight for one in beside)]!r})"]


def _lora_line(folder: str, file: str, more: str = "") -> str:
    return f"pipe.load_lora_weights({folder!r}, weight_name={file!r}{more})"


def _example(summary: StudySummary) -> tuple[str, int]:
    """Returns an example prompt for the result, and its seed."""
    found = next((p for p in summary.prompts if p.kind == "joint"), summary.prompts[0] if summary.prompts else None)
    return (found.text, found.seed) if found else ("a prompt", 0)


def _model_snippet(summary: StudySummary) -> str:
    prompt, seed = _example(summary)
    single = summary.file.endswith(_SINGLE)
    kind = summary.pipeline if single else "DiffusionPipeline"
    if not kind:
        return ""
    lines = [
        "import torch",
        f"from diffusers import {kind}",
        "",
        f"pipe = {kind}.{'from_single_file' if single else 'from_pretrained'}({summary.file!r})",
        f"image = pipe({prompt!r}, generator=torch.Generator().manual_seed({seed})).images[0]",
    ]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Returns a duration as text: ``48 s``, ``12 min``, ``7 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def moment(when: datetime) -> str:
    """Returns date and time with the time zone, to the minute."""
    return when.strftime("%Y-%m-%d %H:%M %Z").strip()


def _facts(summary: StudySummary, trials: Sequence[TrialRow]) -> Iterator[tuple[str, str]]:
    if summary.verdict:
        best = summary.verdict.rows[summary.verdict.winner]
        yield "Weakest source keeps", f"{decimal(best.weakest, 2)} ({decimal(best.ci_low, 2)} to {decimal(best.ci_high, 2)})"
    elif summary.best and summary.best.evaluation and summary.best.evaluation.feasible:
        yield "Best score so far", decimal(summary.best.evaluation.score, 2)
    failed = sum(row.failed for row in trials)
    first = min(summary.baselines, len(trials))
    recipes = len(trials) - first
    budget = f" of {summary.budget}" if summary.budget is not None and summary.budget != recipes else ""
    yield "Trials", f"{recipes}{budget}" + (f" and {first} baselines" if first else "") + (f", {failed} failed" if failed else "")
    if summary.finished:
        yield "Time", duration((summary.finished - summary.created).total_seconds())
    else:
        yield "Time in trials", duration(sum(row.seconds or 0.0 for row in trials))
    if summary.base:
        yield "Base model", summary.base
    if summary.eval_base:
        yield "Drawn by", summary.eval_base
    if summary.accelerators:
        yield "Judged with", f"{summary.beside}, not in the file: load beside it"


def _groups(summary: StudySummary, study: StudyDirectory) -> Iterator[PromptGroup]:
    if not summary.columns:
        return
    rows = [_prompt_row(summary.columns, index, prompt, study) for index, prompt in enumerate(summary.prompts)]
    joint = tuple(row for row in rows if row.prompt.kind == "joint")
    if joint:  # first, because the merge is for them
        yield PromptGroup("Joint prompts, all sources in one picture", joint)
    for source in summary.sources:
        own = tuple(row for row in rows if row.prompt.kind == "own" and row.prompt.source == source.name)
        if own:
            yield PromptGroup(f"Own prompts of {source.name}", own)


def _prompt_row(columns: Sequence[PictureColumn], index: int, prompt: PromptInfo, study: StudyDirectory) -> PromptRow:
    cells = tuple(Cell(c.label, column_tone(c), inline_picture(study, c.files[index])) for c in columns)
    return PromptRow(prompt, cells)


def column_tone(column: PictureColumn) -> str:
    """Returns the tone of a picture column; kinds without their own tone get ``recipe``."""
    return column.kind if column.kind in _TONES else "recipe"


def _picture_problems(groups: Sequence[PromptGroup]) -> Iterator[str]:
    for group in groups:
        for row in group.rows:
            for cell in row.cells:
                if cell.picture.problem:
                    which = f"{cell.label} for “{row.prompt.text}” (seed {row.prompt.seed})"
                    yield f"The picture of {which} is not shown: {cell.picture.problem}."


def _sheet_problems(front: Sequence[FrontRow]) -> Iterator[str]:
    for row in front:
        if row.sheet.problem:
            yield f"The contact sheet of trial {row.member.number} is not shown: {row.sheet.problem}."


def _trial_row(record: TrialRecord, summary: StudySummary, told: Collection[str]) -> TrialRow:
    best = record.number == summary.best_number
    tone, name = ("best", record.label or "best") if best else (tone_of(record.label), record.label)
    found = record.evaluation
    if found is None:
        return TrialRow(
            record,
            tone,
            name,
            True,
            record.error or "no reason was recorded",
            preservation=(None,) * len(summary.names),
            metrics=(None,) * len(summary.metrics),
        )
    try:
        weights = source_weights(found, summary.names)
    except ValueError as error:
        raise ValueError(f"trial {record.number}: {error}") from None
    scores = [found.sources.get(name) for name in summary.names]
    return TrialRow(
        record,
        tone,
        name,
        record.state != "COMPLETE",
        record.error or ", ".join(found.misses),
        _finite(found.score),
        tuple(_finite(s.preservation) if s else None for s in scores),
        _finite(found.artifacts),
        _finite(found.seconds),
        str(found.recipe.get("method") or ""),
        parameters_text(found.recipe, told),
        str(found.recipe.get("rank") or ""),
        "  ".join(decimal(weight, 2) for weight in weights.values()),
        found.metrics.get("seconds_solve", 0.0),
        tuple(_finite(found.metrics.get(f"{name}:value", math.nan)) for name in summary.metrics),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(value: object) -> object:
    """Returns the value with tuples converted to lists, which YAML writes without a tag."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
