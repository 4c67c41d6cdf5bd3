"""The main job: from a configuration to a study directory with a winner in it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from objectives import EmbedderError, load_embedder
from optimizer.errors import NoFeasibleMerge, OptimizerError, StudyError, UsageError
from optimizer.merging import DTYPES
from optimizer.rendering import PromptSet, Renderer, RenderSettings, load_pipeline
from optimizer.search.config import Config
from optimizer.search.confirm import Confirmation, confirm, finalists
from optimizer.search.context import check_same_inputs, check_same_run, evaluation_context, study_inputs
from optimizer.search.evaluate import Evaluator
from optimizer.search.ledger import Ledger, alone_in, open_ledger
from optimizer.search.loop import Limits, search
from optimizer.search.progress import Observer, Silent, Stopped
from optimizer.search.prompting import confirmation_prompts, search_prompts
from optimizer.search.sampler import quiet
from optimizer.search.ship import ship
from optimizer.search.sources import Source, load_sources, remarks
from optimizer.search.space import known_methods, space_for
from optimizer.search.summarise import Story, command_line, summarise
from optimizer.search.warmstart import idle_warning
from studies import StudyDirectory, StudyDirectoryError, StudySummary, load_summary, save_summary, write_report, write_tables
from studies.atomic import write_text
from studies.demo.world import GUIDANCE, STEPS, demo_base, demo_embedder
from studies.records import TrialRecord

EMBEDDER = "ViT-B-32/laion2b_s34b_b79k"


@dataclass(frozen=True)
class Study:
    """A run's outcome.

    Attributes:
        directory: the study directory.
        summary: everything that the report shows.
        best: the exported LoRA, or None for a run that was interrupted before its export.
        complete: whether the whole budget was spent.
    """

    directory: Path
    summary: StudySummary
    best: Path | None
    complete: bool

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials, failed ones included."""
        return self.summary.trials


@dataclass(frozen=True)
class Bench:
    """What every evaluation of a run shares, loaded once."""

    config: Config
    sources: Sequence[Source]
    renderer: Renderer
    embedder: Any
    base: Path

    def evaluator(self, prompts: PromptSet, observer: Observer) -> Evaluator:
        """An evaluator on these prompts, which reports pictures to the observer."""
        return Evaluator(
            self.sources, self.renderer, self.embedder, prompts, lambda done: observer.pictures(done, len(prompts)), observer.note
        )


def optimize(sources: Sequence[str | Path], base: str | Path = "", *, observer: Observer | None = None, **options: Any) -> Study:
    """Find the merge that keeps most of all sources, the weakest first, and export it.

    Args:
        sources: two to five LoRA files, or ``demo:NAME``.
        base: diffusers pipeline directory; may be left out for demo sources only.
        observer: is told of every trial; default: nobody.
        options: the fields of ``Config``: ``budget``, ``out``, ``seed``, ``roles``, ``triggers`` …

    Returns:
        The study.

    Raises:
        UsageError: the request makes no sense (and its kinds: AdapterError, BaseModelError, StudyError).
        NoFeasibleMerge: not one candidate could be evaluated.
    """
    config = Config.of(sources=tuple(sources), base=base, **options)
    return run(config, observer or Silent())


def run(config: Config, observer: Observer) -> Study:
    """Run or continue the study of a configuration; running it again resumes. Raises as ``optimize``."""
    quiet()
    config = config.checked().resolved()
    bench = prepare(config, observer)
    for line in remarks(bench.sources, config.rank):
        observer.note(f"warning: {line}")
    prompts, unseen = search_prompts(config, bench.sources), confirmation_prompts(config, bench.sources)
    directory = _created(config)
    with alone_in(directory):
        ledger = _opened(bench, prompts, directory)
        if finished := _finished(config, ledger):
            return finished
        confirmation, complete = None, False
        try:
            complete = _search(bench, prompts, ledger, observer)
            if finalists(ledger.records(), 1):
                evaluator = bench.evaluator(unseen, observer)
                confirmation = confirm(ledger.records(), evaluator, count=config.finalists, seed=config.seed, observer=observer)
        except Stopped:
            observer.note("stopped; everything finished is on disk")
        study = _closed(bench, ledger, unseen, confirmation, complete)
    if complete and not finalists(study.trials, 1):
        reason = next((t.error for t in reversed(study.trials) if t.error), "")
        raise NoFeasibleMerge(f"no merge can be used; the last failure: {reason}", where=directory.path, remedy="see report.html")
    return study


def prepare(config: Config, observer: Observer) -> Bench:
    """Load and check everything that a run needs, before anything is written; the observer is told where memory does not do for it.

    Raises:
        UsageError: a source, the base, the embedder or a method cannot be used, or they do not fit each other.
    """
    known_methods(config.methods, len(config.sources))
    sources = load_sources(config)
    base = Path(config.base) if config.base else demo_base()
    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    precision = config.precision if config.precision != "auto" else "fp16" if device.startswith("cuda") else "fp32"
    pipeline = load_pipeline(base, device=device, dtype=DTYPES[precision])
    renderer = Renderer(pipeline, _settings(config), note=observer.note)
    sources = [replace(s, adapter=renderer.fitted(s.adapter)) for s in sources]
    spec = config.embedder or (EMBEDDER if config.base else str(demo_embedder()))
    try:
        embedder = load_embedder(spec, device=device)
    except EmbedderError as error:
        raise UsageError(str(error), where="--embedder") from error
    return Bench(config, sources, renderer, embedder, base)


def _settings(config: Config) -> RenderSettings:
    steps, guidance = (20, 7.0) if config.base else (STEPS, GUIDANCE)
    return RenderSettings(
        steps=config.steps or steps,
        guidance=guidance if config.guidance is None else config.guidance,
        negative=config.negative,
        batch=config.batch,
        resolution=config.resolution,
    )


def _created(config: Config) -> StudyDirectory:
    """The study's directory; nothing is written there before it is known to be free or this very study's."""
    directory = StudyDirectory(config.out)
    try:
        if directory.is_study:
            check_same_run(Config.from_yaml(directory.settings), config, config.out)
        return directory.create()
    except StudyDirectoryError as error:
        raise StudyError(error.problem, where=error.where, remedy=error.remedy) from error


def _opened(bench: Bench, prompts: PromptSet, directory: StudyDirectory) -> Ledger:
    precision = f"{bench.renderer.device.type} {bench.renderer.pipeline.dtype}"
    context = evaluation_context(bench.base, prompts, bench.renderer.settings, bench.embedder.name, precision)
    inputs = study_inputs(context, bench.sources)
    ledger = open_ledger(directory, context, budget=bench.config.budget, inputs=inputs)
    check_same_inputs(ledger.inputs, inputs, directory.path)
    write_text(directory.settings, bench.config.to_yaml())
    return ledger


def _finished(config: Config, ledger: Ledger) -> Study | None:
    """The study as it is, if this very command ended before and what it left is still there."""
    directory = ledger.directory
    try:
        summary = load_summary(directory)
        best = directory.inside(summary.file)
    except StudyDirectoryError:
        return None
    same = summary.finished is not None and summary.command == command_line(config) and len(summary.trials) == len(ledger.records())
    return Study(directory.path, summary, best, complete=True) if same and best.is_file() and directory.report.is_file() else None


def _search(bench: Bench, prompts: PromptSet, ledger: Ledger, observer: Observer) -> bool:
    config = bench.config
    space = space_for(
        [s.adapter for s in bench.sources],
        budget=ledger.planned_budget,
        methods=config.methods,
        rank=config.rank,
        dtype=config.dtype,
        seed=config.seed,
    )
    limits = Limits(config.budget, time.monotonic() + config.timeout if config.timeout else None)
    return search(ledger, space, bench.evaluator(prompts, observer), limits, seed=config.seed, observer=observer)


def _closed(bench: Bench, ledger: Ledger, unseen: PromptSet, confirmation: Confirmation | None, complete: bool) -> Study:
    """Export the winner, and write tables, summary and report; these are written even where the export fails."""
    directory, records = ledger.directory, ledger.records()
    write_tables(records, directory, [s.name for s in bench.sources])
    story = Story(
        config=bench.config,
        sources=bench.sources,
        records=records,
        prompts=unseen,
        confirmation=confirmation,
        exported="",
        device=str(bench.renderer.device),
        created=_began(ledger),
        finished=None,
        warnings=(*remarks(bench.sources, bench.config.rank), *(warning for r in records if (warning := _warning(r)))),
    )
    try:
        best = ship(story, directory) if confirmation else None
    except OptimizerError as error:
        _report(replace(story, warnings=(*story.warnings, f"the export failed: {error}")), directory)
        raise
    name = best.relative_to(directory.path).as_posix() if best else ""
    finished = datetime.now(UTC) if best and complete else None
    return Study(directory.path, _report(replace(story, exported=name, finished=finished), directory), best, complete)


def _warning(record: TrialRecord) -> str:
    return f"trial {record.number} failed: {record.error}" if record.evaluation is None else idle_warning(record)


def _report(story: Story, directory: StudyDirectory) -> StudySummary:
    summary = summarise(story, directory)
    save_summary(summary, directory)
    write_report(summary, directory)
    return summary


def _began(ledger: Ledger) -> datetime:
    started = [t.datetime_start for t in ledger.study.get_trials(deepcopy=False) if t.datetime_start]
    return (min(started) if started else datetime.now()).astimezone(UTC)
