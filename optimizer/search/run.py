"""The main job: runs a study from a configuration to a study directory with an exported winner."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer.errors import NoFeasibleMerge, OptimizerError
from optimizer.rendering import AnyRenderer, PromptSet
from optimizer.search.config import Config, checked
from optimizer.search.disk_space import check_space
from optimizer.search.evaluation.aims import Aims
from optimizer.search.evaluation.comparison import Confirmation, nearest_miss, relaxed
from optimizer.search.evaluation.confirmation import confirm, finalists
from optimizer.search.evaluation.fingerprint import check_same_run
from optimizer.search.evaluation.identifiable import identifiable_warnings, left_out_of
from optimizer.search.evaluation.prompt_sets import (
    confirmation_prompts,
    drift_prompts,
    notes_on_prompts,
    search_prompts,
    warnings_about_prompts,
)
from optimizer.search.evaluation.session import Session, prepare
from optimizer.search.labels import is_alone
from optimizer.search.loop import begin_search, first_trials, search
from optimizer.search.observer import Observer, Silent, Stopped
from optimizer.search.patience import check_patience
from optimizer.search.proposals.initial_trials import idle_warning
from optimizer.search.proposals.sampler import quiet
from optimizer.search.results.export import export_winner
from optimizer.search.results.front import write_front
from optimizer.search.results.summary import SummaryInputs, command_line, summarise
from optimizer.search.study_errors import study_errors
from optimizer.search.trials.fork import ForkOrigin, resolve_fork, take_over
from optimizer.search.trials.ledger import Ledger
from optimizer.search.trials.open import open_ledger
from optimizer.search.trials.run_lock import lock_run
from optimizer.search.workers.local_processes import LocalWorkers
from studies import FrontMember, StudyDirectory, StudyDirectoryError, StudySummary, load_summary, save_summary, write_report, write_tables
from studies.atomic import write_text
from studies.records import TrialRecord

if TYPE_CHECKING:
    from optimizer.search.evaluation.study_routers import StudyRouters


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
    config, origin = resolve_fork(checked(config).resolved())
    session = prepare(config, observer)
    for line in _warnings(session):
        observer.note(f"warning: {line}")
    for line in session.ensemble.notes():
        observer.note(line)
    prompts, unseen = search_prompts(config, session.sources), confirmation_prompts(config, session.sources)
    session.renderer.special(unseen.prompts)  # fails now, not after the search, if a confirmation prompt cannot be rendered
    check_patience(config, prompts)
    room = check_space(session, prompts, unseen, StudyDirectory(config.places.out))
    directory, name = _create_directory(config), origin.name if origin else ""
    with lock_run(directory), open_ledger(session, prompts, directory, observer, fork=name) as ledger:
        if finished := _finished_study(config, ledger, directory):
            return finished
        if session.renderer.plan:
            observer.note(session.renderer.plan)
            observer.note(_rendering_line(session.renderer))
        for line in (room, *notes_on_prompts(config, session.sources)):
            observer.note(line)
        if origin and not directory.is_study:
            observer.note(_take_over(origin, session, ledger))
        write_text(directory.settings, config.to_yaml())
        confirmation, complete, unconfirmed = None, False, None
        routers = session.routers(ledger.store, observer)
        try:
            complete = _search(session, prompts, ledger, directory, routers, observer)
            if finalists(ledger.records(), 1):
                evaluator = session.evaluator(unseen, observer, routers, final=True)
                evaluator.left_out = left_out_of(ledger.records(), [s.name for s in session.sources])
                count, seed = config.protocol.finalists, config.search.seed
                neutral = drift_prompts(config, session.sources)
                confirmation = confirm(ledger.records(), evaluator, count=count, seed=seed, observer=observer, without_triggers=neutral)
        except Stopped:
            observer.note("stopped; everything finished is on disk")
        except NoFeasibleMerge as error:
            if not finalists(ledger.records(), 1):
                raise
            unconfirmed = error  # after the report is written
        study = _export_results(session, ledger, directory, unseen, confirmation, routers, complete)
    if unconfirmed:
        raise unconfirmed
    if complete and not finalists(study.trials, 1):
        raise _no_merge(study.trials, directory, session.aims)
    return study


def _no_merge(records: Sequence[TrialRecord], directory: StudyDirectory, aims: Aims) -> NoFeasibleMerge:
    """Returns why no merge can be exported: every one misses a constraint, or has failed."""
    merges = {r.label or f"trial {r.number}": r.evaluation.constraints for r in records if r.evaluation and not is_alone(r.label)}
    if merges:
        problem = nearest_miss(merges, "on the search's prompts", aims.targets)
        return NoFeasibleMerge(problem, where=directory.path, remedy=f"{relaxed(merges.values())}, see report.html")
    reason = next((t.error for t in reversed(records) if t.error), "")
    return NoFeasibleMerge(f"no merge can be used; the last failure: {reason}", where=directory.path, remedy="see report.html")


def _rendering_line(renderer: AnyRenderer) -> str:
    """Returns a description of the resolved rendering settings."""
    (height, width), settings = renderer.picture_size, renderer.settings
    return f"pictures: {width} × {height}, {settings.steps} steps, guidance {settings.guidance:g}, up to {settings.batch} at once"


def _take_over(origin: ForkOrigin, session: Session, ledger: Ledger) -> str:
    space = session.space(ledger.planned_budget, ledger.inputs)
    return take_over(origin, ledger, space, first_trials(space, ledger.planned_budget), session.aims)


def _create_directory(config: Config) -> StudyDirectory:
    """Returns the study directory; it is created only if it is empty or contains a study with equal settings."""
    directory = StudyDirectory(config.places.out)
    with study_errors():
        if directory.is_study:
            check_same_run(Config.from_yaml(directory.settings), config, config.places.out)
        return directory.create()


def _finished_study(config: Config, ledger: Ledger, directory: StudyDirectory) -> Study | None:
    """Returns the existing result if this command has already completed and its files still exist, else None."""
    try:
        summary = load_summary(directory)
        best = directory.inside(summary.file)
    except StudyDirectoryError:
        return None
    same = summary.finished is not None and summary.command == command_line(config) and len(summary.trials) == len(ledger.records())
    return Study(directory.path, summary, best, complete=True) if same and best.exists() and directory.report.is_file() else None


def _search(
    session: Session, prompts: PromptSet, ledger: Ledger, directory: StudyDirectory, routers: StudyRouters | None, observer: Observer
) -> bool:
    config, space = session.config, session.space(ledger.planned_budget, ledger.inputs)
    observer.note(space.summary())
    if space.bounds.grid != session.space(ledger.planned_budget).bounds.grid:
        observer.note("an earlier version began this study without a grid of weights: it goes on without")
    begin_search(ledger, space, config.search.budget)
    deadline = time.monotonic() + config.search.timeout if config.search.timeout else None
    evaluator = session.evaluator(prompts, observer, routers)
    with LocalWorkers(config, directory.path, observer):
        return search(ledger, space, evaluator, config, deadline=deadline, observer=observer)


def _export_results(
    session: Session,
    ledger: Ledger,
    directory: StudyDirectory,
    unseen: PromptSet,
    confirmation: Confirmation | None,
    routers: StudyRouters | None,
    complete: bool,
) -> Study:
    """Exports the winner and writes tables, summary and report, which are written even if the export fails."""
    records, names = ledger.records(), [s.name for s in session.sources]
    write_tables(records, directory, names)
    router = routers.router if routers else None
    front: tuple[FrontMember, ...] = ()
    problems: tuple[str, ...] = ()
    try:
        if session.config.search.pareto:
            front = write_front(records, session.config, session.sources, directory, ledger.store, router, session.drawn_with)
    except OptimizerError as error:  # a router that is missing, for instance, does not cost the report and the winner
        problems = (f"the front cannot be written: {error}",)
    inputs = SummaryInputs(
        config=session.config,
        sources=session.sources,
        records=records,
        prompts=unseen,
        confirmation=confirmation,
        exported="",
        device=str(session.renderer.device),
        created=ledger.started,
        finished=None,
        warnings=(
            *_warnings(session),
            *identifiable_warnings(left_out_of(records, names) or (), names),
            *(warning for r in records if (warning := _warning(r))),
            *problems,
        ),
        imported=ledger.imported,
        front=front,
        drawn_with=session.drawn_with,
    )
    try:
        best = export_winner(inputs, directory, router) if confirmation else None
    except OptimizerError as error:
        _write_summary(replace(inputs, warnings=(*inputs.warnings, f"the export failed: {error}")), directory)
        raise
    name = best.relative_to(directory.path).as_posix() if best else ""
    finished = datetime.now(UTC) if best and complete else None
    return Study(directory.path, _write_summary(replace(inputs, exported=name, finished=finished), directory), best, complete)


def _warnings(session: Session) -> list[str]:
    """Returns warnings about the sources and the prompts of a run, one line each."""
    return [*session.ensemble.remarks(), *warnings_about_prompts(session.config.protocol.prompts, session.sources)]


def _warning(record: TrialRecord) -> str:
    return f"trial {record.number} failed: {record.error}" if record.evaluation is None else idle_warning(record)


def _write_summary(inputs: SummaryInputs, directory: StudyDirectory) -> StudySummary:
    summary = summarise(inputs, directory)
    save_summary(summary, directory)
    write_report(summary, directory)
    return summary
