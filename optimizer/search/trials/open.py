"""Opening the ledger of a run: finds its study, on this machine or in a database, and checks that its inputs are unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from optimizer.rendering import PromptSet
from optimizer.search.config import Config, Places
from optimizer.search.evaluation.fingerprint import check_same_inputs, evaluation_context, study_inputs
from optimizer.search.evaluation.session import Bench
from optimizer.search.images.retention import Gallery
from optimizer.search.observer import Observer
from optimizer.search.study_errors import study_errors
from optimizer.search.trials.ledger import Ledger, begin, budget_of, inputs_of
from optimizer.search.workers.claims import Claims
from optimizer.search.workers.heartbeat import Presence
from optimizer.search.workers.registry import newcomer
from optimizer.search.workers.retry import Patience
from optimizer.search.workers.storage import BEAT, Shared, in_database, on_this_machine
from optimizer.search.workers.transfer import send
from studies import StudyDirectory
from studies.store import FolderStore, Store
from studies.store_urls import check, open_store
from studies.trial_log import TrialLog


@contextmanager
def open_ledger(
    bench: Bench, prompts: PromptSet, directory: StudyDirectory, observer: Observer, *, joining: bool = False, fork: str = ""
) -> Iterator[Ledger]:
    """Yields the study's ledger, with this process registered as a worker while the block runs.

    Args:
        bench: session of the run.
        prompts: prompts of the search.
        directory: directory of the study or of its report.
        observer: receives a note when the storage is unavailable.
        joining: only join a study that has started.
        fork: name of the study that this one is a fork of.

    Raises:
        StudyError: the study cannot be opened, or was started with other inputs.
        UsageError: a prompt is longer than the base model accepts.
    """
    config = bench.config
    renderer, eye, parts = bench.renderer, bench.embedder.name, config.loading.parts()
    special = renderer.special(prompts.prompts)
    based = bench.ensemble.based
    context = evaluation_context(bench.base, prompts, renderer.settings, eye, renderer.precision, parts, special=special, based=based)
    shared, store = open_shared(config.places, directory, create=not joining), open_store_of(config.places, directory)
    try:
        patience = Patience(observer)
        budget = patience(lambda: budget_of(shared.study, config.search.budget))
        inputs = study_inputs(context, bench.sources, bench.space(budget))
        begun = patience(lambda: inputs_of(shared.study))
        check_same_inputs(begun, inputs, "--study" if joining and config.places.storage else directory.path)
        if not joining:
            patience(lambda: begin(shared.study, TrialLog(store), budget=config.search.budget, inputs=inputs, fork=fork))
        if config.places.storage and not joining:
            patience(lambda: send(config, bench.sources, shared.study, store))
        member = newcomer()
        claims = Claims(shared.study, shared.gate, shared.roster, member.name)
        with Presence(shared.roster, member, BEAT).shown(patience) as presence:
            yield Ledger(shared.study, store, context, claims, shared.writes, presence, patience, gallery_of(config))
    finally:
        shared.close()


def gallery_of(config: Config) -> Gallery:
    """Returns the retention policy of a run's pictures."""
    return Gallery(config.output.keep_images, config.protocol.finalists)


def open_shared(places: Places, directory: StudyDirectory, *, create: bool) -> Shared:
    """Returns the shared Optuna study of a configuration."""
    if places.storage:
        return in_database(places.storage, places.study_name, create=create)
    return on_this_machine(directory)


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
