"""The main job: runs a study from a configuration to a study directory with an exported winner."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optimizer.errors import NoFeasibleMerge, OptimizerError
from optimizer.rendering import AnyRenderer, PromptSet
from optimizer.search.config import Config, checked
from optimizer.search.disk_space import check_space
from optimizer.search.evaluation.confirmation import Confirmation, confirm, finalists
from optimizer.search.evaluation.fingerprint import check_same_run
from optimizer.search.evaluation.prompt_sets import confirmation_prompts, search_prompts
from optimizer.search.evaluation.session import Bench, prepare
from optimizer.search.loop import begin_search, first_trials, search
from optimizer.search.observer import Observer, Silent, Stopped
from optimizer.search.proposals.initial_trials import idle_warning
from optimizer.search.proposals.sampler import quiet
from optimizer.search.results.export import ship
from optimizer.search.results.summary import Story, command_line, summarise
from optimizer.search.study_errors import study_errors
from optimizer.search.trials.fork import Origin, forked, take_over
from optimizer.search.trials.ledger import Ledger, alone_in
from optimizer.search.trials.open import open_ledger
from optimizer.search.workers.local_processes import Crew
from studies import StudyDirectory, StudyDirectoryError, StudySummary, load_summary, save_summary, write_report, write_tables
from studies.atomic import write_text
from studies.records import TrialRecord


@dataclass(frozen=True)
class Study:
    """Result of a run.

    Attributes:
        directory: study directory.
        summary: data that the report shows.
        best: path of the exported LoRA or model; None if the run was interrupted before the export.
        complete: whether the whole budget was used.
    """

    directory: Path
    summary: StudySummary
    best: Path | None
    complete: bool

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials, failed ones included."""
        return self.summary.trials


def optimize(sources: Sequence[str | Path], base: str | Path = "", *, observer: Observer | None = None, **options: Any) -> Study:
    """Finds the merge with the best confirmed score, or a simpler one within noise of it, and exports it.

    Args:
        sources: two to five LoRA files, or ``demo:NAME``; with ``kind="model"`` full models.
        base: the base model; optional for demo sources and full models; ``fake:`` selects the fake renderer.
        observer: receives every trial; default: none.
        options: options of the command line: ``budget``, ``out``, ``seed``, ``roles``, ``triggers`` …

    Returns:
        Outcome of the run.

    Raises:
        UsageError: the request is invalid; also its subclasses AdapterError, BaseModelError and StudyError.
        NoFeasibleMerge: no candidate could be evaluated.
    """
    config = Config.of(sources=tuple(sources), base=base, **options)
    return run(config, observer or Silent())


def run(config: Config, observer: Observer) -> Study:
    """Runs or resumes the study of a configuration. Raises the exceptions of ``optimize``."""
    quiet()
    config, origin = forked(checked(config).resolved())
    bench = prepare(config, observer)
    for line in bench.ensemble.remarks():
        observer.note(f"warning: {line}")
    prompts, unseen = search_prompts(config, bench.sources), confirmation_prompts(config, bench.sources)
    bench.renderer.special(unseen.prompts)  # fails now, not after the search, if a confirmation prompt cannot be rendered
    room = check_space(bench, prompts, unseen, StudyDirectory(config.places.out))
    directory, name = _created(config), origin.name if origin else ""
    with alone_in(directory), open_ledger(bench, prompts, directory, observer, fork=name) as ledger:
        if finished := _finished(config, ledger, directory):
            return finished
        if bench.renderer.plan:
            observer.note(bench.renderer.plan)
            observer.note(_drawing(bench.renderer))
        observer.note(room)
        if origin and not directory.is_study:
            observer.note(_taken_over(origin, bench, ledger))
        write_text(directory.settings, config.to_yaml())
        confirmation, complete = None, False
        try:
            complete = _search(bench, prompts, ledger, directory, observer)
            if finalists(ledger.records(), 1):
                evaluator = bench.evaluator(unseen, observer, final=True)
                confirmation = confirm(
                    ledger.records(), evaluator, count=config.protocol.finalists, seed=config.search.seed, observer=observer
                )
        except Stopped:
            observer.note("stopped; everything finished is on disk")
        study = _closed(bench, ledger, directory, unseen, confirmation, complete)
    if complete and not finalists(study.trials, 1):
        reason = next((t.error for t in reversed(study.trials) if t.error), "")
        raise NoFeasibleMerge(f"no merge can be used; the last failure: {reason}", where=directory.path, remedy="see report.html")
    return study


def _drawing(renderer: AnyRenderer) -> str:
    """Returns a description of the resolved rendering settings."""
    (height, width), settings = renderer.picture_size, renderer.settings
    return f"pictures: {width} × {height}, {settings.steps} steps, guidance {settings.guidance:g}, up to {settings.batch} at once"


def _taken_over(origin: Origin, bench: Bench, ledger: Ledger) -> str:
    space = bench.space(ledger.planned_budget)
    return take_over(origin, ledger, space, first_trials(space, ledger.planned_budget))


def _created(config: Config) -> StudyDirectory:
    """Returns the study directory; it is created only if it is empty or contains a study with equal settings."""
    directory = StudyDirectory(config.places.out)
    with study_errors():
        if directory.is_study:
            check_same_run(Config.from_yaml(directory.settings), config, config.places.out)
        return directory.create()


def _finished(config: Config, ledger: Ledger, directory: StudyDirectory) -> Study | None:
    """Returns the existing result if this command has already completed and its files still exist, else None."""
    try:
        summary = load_summary(directory)
        best = directory.inside(summary.file)
    except StudyDirectoryError:
        return None
    same = summary.finished is not None and summary.command == command_line(config) and len(summary.trials) == len(ledger.records())
    return Study(directory.path, summary, best, complete=True) if same and best.exists() and directory.report.is_file() else None


def _search(bench: Bench, prompts: PromptSet, ledger: Ledger, directory: StudyDirectory, observer: Observer) -> bool:
    config, space = bench.config, bench.space(ledger.planned_budget)
    observer.note(space.summary())
    begin_search(ledger, space, config.search.budget)
    deadline = time.monotonic() + config.search.timeout if config.search.timeout else None
    with Crew(config, directory.path, observer):
        return search(ledger, space, bench.evaluator(prompts, observer), config, deadline=deadline, observer=observer)


def _closed(
    bench: Bench, ledger: Ledger, directory: StudyDirectory, unseen: PromptSet, confirmation: Confirmation | None, complete: bool
) -> Study:
    """Exports the winner and writes tables, summary and report, which are written even if the export fails."""
    records = ledger.records()
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
        warnings=(*bench.ensemble.remarks(), *(warning for r in records if (warning := _warning(r)))),
        imported=ledger.imported,
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
    started = [t.datetime_start for t in ledger.patience(lambda: ledger.study.get_trials(deepcopy=False)) if t.datetime_start]
    return (min(started) if started else datetime.now()).astimezone(UTC)
