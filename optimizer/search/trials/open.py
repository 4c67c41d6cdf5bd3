"""Opening the ledger of a run: its study, on this machine or in a database, as far as it is the same study still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from optimizer.errors import StudyError
from optimizer.rendering import PromptSet
from optimizer.search.config import PARTS, Config
from optimizer.search.evaluation.fingerprint import check_same_inputs, evaluation_context, study_inputs
from optimizer.search.evaluation.session import Bench
from optimizer.search.images.retention import Gallery
from optimizer.search.observer import Observer
from optimizer.search.trials.ledger import Ledger, begin, budget_of, inputs_of
from optimizer.search.workers.claims import Claims
from optimizer.search.workers.heartbeat import Presence
from optimizer.search.workers.registry import newcomer
from optimizer.search.workers.retry import Patience
from optimizer.search.workers.storage import BEAT, Shared, in_database, on_this_machine
from optimizer.search.workers.transfer import send
from studies import StudyDirectory, StudyDirectoryError
from studies.store import FolderStore, Store
from studies.store_urls import check, open_store
from studies.trial_log import TrialLog


@contextmanager
def open_ledger(
    bench: Bench, prompts: PromptSet, directory: StudyDirectory, observer: Observer, *, joining: bool = False, fork: str = ""
) -> Iterator[Ledger]:
    """The study's ledger, with this process on its roster while the block runs.

    Args:
        bench: what evaluates.
        prompts: of the search.
        directory: where the study lies, or its report will.
        observer: is told when the storage is away.
        joining: only work on a study that has begun.
        fork: name of the study that this one is a fork of.

    Raises:
        StudyError: the study cannot be opened, or was begun with other inputs.
        UsageError: a prompt is longer than the base reads.
    """
    config = bench.config
    renderer, eye, parts = bench.renderer, bench.embedder.name, {part: getattr(config, part) for part in PARTS}
    special = renderer.special(prompts.prompts)
    based = bench.ensemble.based
    context = evaluation_context(bench.base, prompts, renderer.settings, eye, renderer.precision, parts, special=special, based=based)
    shared, store = open_shared(config, directory, create=not joining), open_store_of(config, directory)
    try:
        patience = Patience(observer)
        budget = patience(lambda: budget_of(shared.study, config.budget))
        inputs = study_inputs(context, bench.sources, bench.space(budget))
        begun = patience(lambda: inputs_of(shared.study))
        check_same_inputs(begun, inputs, "--study" if joining and config.storage else directory.path)
        if not joining:
            patience(lambda: begin(shared.study, TrialLog(store), budget=config.budget, inputs=inputs, fork=fork))
        if config.storage and not joining:
            patience(lambda: send(config, bench.sources, shared.study, store))
        member = newcomer()
        claims = Claims(shared.study, shared.gate, shared.roster, member.name)
        with Presence(shared.roster, member, BEAT).shown(patience) as presence:
            yield Ledger(shared.study, store, context, claims, shared.writes, presence, patience, gallery_of(config))
    finally:
        shared.close()


def gallery_of(config: Config) -> Gallery:
    """Which pictures a run keeps."""
    return Gallery(config.keep_images, config.finalists)


def open_shared(config: Config, directory: StudyDirectory, *, create: bool) -> Shared:
    """The Optuna study of a configuration."""
    if config.storage:
        return in_database(config.storage, config.study or config.out.name, create=create)
    return on_this_machine(directory)


def open_store_of(config: Config, directory: StudyDirectory) -> Store:
    """Where its evaluations, pictures and sources lie.

    Raises:
        StudyError: the place cannot be used.
    """
    if not config.storage:
        return FolderStore(directory.path)
    try:
        store = open_store(config.artifacts)
        check(store)
    except StudyDirectoryError as error:
        raise StudyError(error.problem, where="--artifacts", remedy=error.remedy) from error
    return store
