"""Working on a study that another process has begun: here, or on any machine that reaches its database."""

from __future__ import annotations

from optimizer.search.config import Config
from optimizer.search.evaluation.prompt_sets import search_prompts
from optimizer.search.evaluation.session import prepare
from optimizer.search.loop import search
from optimizer.search.observer import Observer
from optimizer.search.proposals.sampler import quiet
from optimizer.search.trials.open import open_ledger, open_shared, open_store_of
from optimizer.search.workers.retry import Patience
from optimizer.search.workers.transfer import fetched
from studies import StudyDirectory


def work(config: Config, observer: Observer) -> int:
    """Evaluate trials until the study has none left, and return how many this process has evaluated.

    Args:
        config: the study's, or one that says which database it is in and what is different on this machine.
        observer: is told of every trial, and may raise ``Stopped``.

    Raises:
        UsageError: something that the study needs cannot be used here.
        StudyError: there is no such study, or what it needs is not the same here.
    """
    quiet()
    directory = StudyDirectory(config.out)
    if config.storage:
        shared = open_shared(config, directory, create=False)
        store, own = open_store_of(config, directory), config
        try:
            config = Patience(observer)(lambda: fetched(own, shared.study, store))
        finally:
            shared.close()
    bench = prepare(config, observer)
    prompts = search_prompts(config, bench.sources)
    with open_ledger(bench, prompts, directory, observer, joining=True) as ledger:
        space, evaluator = bench.space(ledger.planned_budget), bench.evaluator(prompts, observer)
        search(ledger, space, evaluator, config, deadline=None, observer=observer)
        return ledger.presence.member.finished
