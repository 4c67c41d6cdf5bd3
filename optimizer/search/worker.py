"""Workers: evaluate trials of a study that another process has started, on this or any machine that can reach its database."""

from __future__ import annotations

from optimizer.search.config import Config
from optimizer.search.evaluation.prompt_sets import search_prompts
from optimizer.search.evaluation.session import prepare
from optimizer.search.loop import search
from optimizer.search.observer import Observer
from optimizer.search.proposals.sampler import quiet
from optimizer.search.trials.open import open_ledger, open_shared, open_store_of
from optimizer.search.workers.retry import RetryPolicy
from optimizer.search.workers.transfer import fetch_config
from studies import StudyDirectory


def work(config: Config, observer: Observer) -> int:
    """Evaluates trials until the study is complete, and returns how many this process evaluated.

    Args:
        config: the study's configuration, or one with the database location and the settings that differ on this machine.
        observer: receives every trial; may raise ``Stopped``.

    Raises:
        UsageError: a required resource cannot be used on this machine.
        StudyError: the study does not exist, or its inputs differ on this machine.
    """
    quiet()
    directory = StudyDirectory(config.places.out)
    if config.places.storage:
        shared = open_shared(config.places, directory, create=False)
        store, own = open_store_of(config.places, directory), config
        try:
            config = RetryPolicy(observer)(lambda: fetch_config(own, shared.study, store))
        finally:
            shared.close()
    session = prepare(config, observer)
    prompts = search_prompts(config, session.sources)
    with open_ledger(session, prompts, directory, observer, joining=True) as ledger:
        space = session.space(ledger.planned_budget, ledger.inputs)
        evaluator = session.evaluator(prompts, observer, session.routers(ledger.store, observer))
        search(ledger, space, evaluator, config, deadline=None, observer=observer)
        return ledger.finished
