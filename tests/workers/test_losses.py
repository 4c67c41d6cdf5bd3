"""Inside one run: an outage at any call to the storage changes nothing, a trial that kills its workers fails, the first result stands."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend

from optimizer import Study, optimize
from optimizer.search import loop
from optimizer.search.observer import Silent
from optimizer.search.workers.claims import MOST_LOST
from optimizer.search.workers.journal import Journal
from studies import EvaluationCache
from studies.records import Evaluation
from tests.search.runs import trials
from tests.workers.runs import Sources


def run(sources: Sources, out: Path, observer: Silent | None = None) -> Study:
    base = "fake:size=4&fail=0.1"
    return optimize(sources=sources, base=base, own=1, joint=1, confirm=1, finalists=1, budget=6, out=out, observer=observer)


@pytest.fixture(scope="module")
def whole(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The undisturbed run."""
    return run(sources, tmp_path_factory.mktemp("whole"))


class Outages(Silent):
    """Makes calls to the journal fail at random while the search goes on: before they do anything, or with their answer lost."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lot, self.on, self.waits, self.failed = random.Random(seed), False, 0, 0
        append, read = Journal.append_logs, JournalFileBackend.read_logs

        def appended(journal: Journal, logs: Any) -> None:
            self._perhaps()
            append(journal, logs)
            self._perhaps()

        def lines(journal: Journal, start: int) -> Iterator[dict[str, Any]]:
            self._perhaps()
            yield from read(journal, start)

        monkeypatch.setattr(Journal, "append_logs", appended)
        monkeypatch.setattr(Journal, "read_logs", lines)

    def stage(self, name: str, total: int) -> None:
        self.on = name == "search"

    def waiting(self, seconds: float) -> None:
        self.waits += 1

    def _perhaps(self) -> None:
        if self.on and self.lot.random() < 0.03:
            self.failed += 1
            raise StorageInternalError("the server is away")


@pytest.mark.parametrize("seed", range(4))
def test_outages_at_any_call_change_no_trial(
    whole: Study, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    outages = Outages(seed, monkeypatch)
    found = run(sources, tmp_path, outages)
    assert outages.failed >= 3
    assert trials(found.trials) == trials(whole.trials)
    assert [t.error for t in found.trials] == [t.error for t in whole.trials]


def test_a_trial_over_which_too_many_workers_have_died_fails_and_the_search_goes_on(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "times_lost", lambda trial: MOST_LOST if trial.number == 5 else MOST_LOST - 1)
    found = run(sources, tmp_path)
    assert found.trials[5].error == "10 workers ended while they evaluated it — see their logs"
    assert len(found.trials) == 10
    assert found.complete


def test_where_another_worker_was_first_its_evaluation_stands(sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = EvaluationCache.add

    def late(cache: EvaluationCache, key: str, evaluation: Evaluation) -> Evaluation:
        cache.put(key, evaluation.model_copy(update={"score": 0.0625}))
        return real(cache, key, evaluation)

    monkeypatch.setattr(EvaluationCache, "add", late)
    found = run(sources, tmp_path)
    assert {t.evaluation.score for t in found.trials if t.evaluation} == {0.0625}
