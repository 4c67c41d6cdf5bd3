"""Opening the ledger of a run: finds its study, on this machine or in a database, and checks that its inputs are unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from optimizer.rendering import PromptSet
from optimizer.search.config import Places
from optimizer.search.evaluation.fingerprint import check_same_inputs, evaluation_context, study_inputs
from optimizer.search.evaluation.session import Session
from optimizer.search.images.retention import ImageRetention
from optimizer.search.observer import Observer
from optimizer.search.study_errors import study_errors
from optimizer.search.trials.beginning import begin, budget_of, inputs_of
from optimizer.search.trials.evaluations import StudyEvaluations
from optimizer.search.trials.ledger import Ledger
from optimizer.search.workers.claims import Claims
from optimizer.search.workers.heartbeat import Heartbeat
from optimizer.search.workers.registry import new_worker
from optimizer.search.workers.retry import RetryPolicy
from optimizer.search.workers.storage import SharedStudy, heartbeat_seconds, open_database_study, open_local_study
from optimizer.search.workers.transfer import send
from studies import StudyDirectory
from studies.store import FolderStore, Store
from studies.store_urls import check, open_store
from studies.trial_log import TrialLog


@contextmanager
def open_ledger(
    session: Session, prompts: PromptSet, directory: StudyDirectory, observer: Observer, *, joining: bool = False, fork: str = ""
) -> Iterator[Ledger]:
    """Yields the study's ledger, with this process registered as a worker while the block runs.

    Args:
        session: evaluation session of the run.
        prompts: prompts of the search.
        directory: directory of the study or of its report.
        observer: receives a note when the storage is unavailable.
        joining: only join a study that has started.
        fork: name of the study that this one is a fork of.

    Raises:
        StudyError: the study cannot be opened, or was started with other inputs.
        UsageError: a prompt is longer than the base model accepts.
    """
    config = session.config
    drawn = session.drawing_context(prompts)
    objectives, based = session.objectives, session.ensemble.based
    context = evaluation_context(drawn, session.embedder.name, objectives=objectives, based=based, aims=session.aims)
    shared, store = open_shared(config.places, directory, create=not joining), open_store_of(config.places, directory)
    try:
        retry = RetryPolicy(observer)
        budget = retry(lambda: budget_of(shared.study, config.search.budget))
        begun = retry(lambda: inputs_of(shared.study))
        inputs = study_inputs(context, session.sources, session.space(budget, begun))
        check_same_inputs(begun, inputs, "--study" if joining and config.places.storage else directory.path)
        if not joining:
            retry(lambda: begin(shared.study, TrialLog(store), budget=config.search.budget, inputs=inputs, fork=fork))
        if config.places.storage and not joining:
            retry(lambda: send(config, session.sources, shared.study, store))
        entry = new_worker()
        claims = Claims(shared.study, shared.lock, shared.registry, shared.writer, entry.name)
        with Heartbeat(shared.registry, entry, heartbeat_seconds()).running(retry) as heartbeat:
            evaluations = StudyEvaluations(store, context, ImageRetention(config.output.keep_images, config.protocol.finalists))
            yield Ledger(shared.study, evaluations, claims, shared.writer, heartbeat, retry, len(prompts))
    finally:
        shared.close()


def open_shared(places: Places, directory: StudyDirectory, *, create: bool) -> SharedStudy:
    """Returns the shared Optuna study of a configuration."""
    if places.storage:
        return open_database_study(places.storage, places.study_name, create=create)
    return open_local_study(directory)


def open_store_of(places: Places, directory: StudyDirectory) -> Store:
    """Returns the store of a study's evaluations, pictures and sources.

    Raises:
        StudyError: the store cannot be used.
    """
    if not places.storage:
        return FolderStore(directory.path)
    with study_errors("--artifacts"):
        store = open_store(places.artifacts)
        check(store)
    return store
