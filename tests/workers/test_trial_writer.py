"""What is written of a trial, on both backends: Optuna reads it as its own, the first of two writers stands, nothing is written by half."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from optimizer.search.workers.storage import SharedStudy, open_database_study, open_local_study
from optimizer.search.workers.trial_writer import TrialResult
from studies import StudyDirectory

SPACES = {"method": CategoricalDistribution(("linear", "ties")), "weight": FloatDistribution(0.0, 1.3)}
ENDING = TrialResult(0.1 + 0.2, {"evaluation": "key", "artifacts": 0.25}, {"artifacts:0": "{}"}, {"dashboard:1:note_ver": 1})


@pytest.fixture
def journal(tmp_path: Path) -> SharedStudy:
    return open_local_study(StudyDirectory(tmp_path).create())


@pytest.fixture
def postgres(database: str) -> Iterator[SharedStudy]:
    shared = open_database_study(database, "writes", create=True)
    yield shared
    shared.close()


@pytest.fixture(params=["journal", pytest.param("postgres", marks=pytest.mark.postgres)])
def shared(request: pytest.FixtureRequest) -> SharedStudy:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: SharedStudy = request.getfixturevalue(request.param)
    return found


def proposal(shared: SharedStudy, method: str = "ties", weight: float = 0.1 + 0.2) -> FrozenTrial:
    """A proposal for the only trial, which begins if it has not begun."""
    if not shared.study.get_trials(deepcopy=False):
        shared.study.ask()
    (trial,) = shared.study.get_trials()
    trial.params, trial.distributions = {"method": method, "weight": weight}, SPACES
    return trial


def stored(shared: SharedStudy) -> FrozenTrial:
    (trial,) = shared.study.get_trials()
    return trial


def test_a_whole_trial_is_appended_once(shared: SharedStudy) -> None:
    whole = create_trial(
        value=0.1 + 0.2,
        params={"method": "ties", "weight": 0.1 + 0.2},
        distributions=SPACES,
        user_attrs={"evaluation": "key"},
        system_attrs={"artifacts:0": "{}"},
    )
    assert shared.writer.create(whole, 1) is None
    assert shared.study.trials == []
    created = shared.writer.create(whole, 0)
    assert created is not None
    assert shared.writer.create(whole, 0) is None
    found = stored(shared)
    assert (found.number, found._trial_id, found.state) == (0, created._trial_id, TrialState.COMPLETE)
    assert (found.value, found.params, found.distributions) == (0.1 + 0.2, whole.params, SPACES)
    assert (found.user_attrs, found.system_attrs) == ({"evaluation": "key"}, {"artifacts:0": "{}"})
    assert (found.datetime_start, found.datetime_complete) == (whole.datetime_start, whole.datetime_complete)


def test_a_trial_that_has_changed_since_it_was_seen_is_not_claimed(shared: SharedStudy) -> None:
    shared.study.ask()
    seen = stored(shared)
    claimed = shared.writer.claim(seen, "other")
    assert claimed is not None
    assert claimed.user_attrs == {"worker": "other"}
    assert shared.writer.claim(seen, "one") is None
    assert stored(shared).user_attrs == {"worker": "other"}
    shared.study.tell(0, state=TrialState.FAIL)
    assert shared.writer.claim(claimed, "one") is None
    assert (stored(shared).state, stored(shared).user_attrs) == (TrialState.FAIL, {"worker": "other"})


def test_optuna_reads_it_as_its_own(shared: SharedStudy) -> None:
    assert shared.writer.propose(proposal(shared)).params == {"method": "ties", "weight": 0.1 + 0.2}
    assert (stored(shared).params, stored(shared).distributions) == ({"method": "ties", "weight": 0.1 + 0.2}, SPACES)
    assert shared.writer.end(stored(shared), ENDING)
    found = stored(shared)
    assert (found.state, found.value, found.user_attrs) == (TrialState.COMPLETE, 0.1 + 0.2, ENDING.user)
    assert found.system_attrs == ENDING.system
    assert shared.study._storage.get_study_system_attrs(shared.study._study_id).items() >= dict(ENDING.study).items()
    assert found.datetime_start is not None
    assert found.duration is not None
    assert 0 <= found.duration.total_seconds() < 60
    assert shared.study.best_value == 0.1 + 0.2


def test_a_failure(shared: SharedStudy) -> None:
    assert shared.writer.end(proposal(shared), TrialResult(None, {"error": "why"}))
    assert (stored(shared).state, stored(shared).values, stored(shared).user_attrs) == (TrialState.FAIL, None, {"error": "why"})


def test_the_first_end_stands(shared: SharedStudy) -> None:
    trial = proposal(shared)
    assert shared.writer.end(trial, ENDING)
    assert not shared.writer.end(trial, replace(ENDING, value=0.9, user={"evaluation": "other"}))
    assert (stored(shared).value, stored(shared).user_attrs) == (ENDING.value, ENDING.user)
    with pytest.raises(UpdateFinishedTrialError):
        shared.writer.propose(trial)


def test_what_was_written_before_is_written_again(shared: SharedStudy) -> None:
    trial = proposal(shared)
    shared.study._storage.set_trial_user_attr(trial._trial_id, "artifacts", 1.0)
    shared.study._storage.set_study_system_attr(shared.study._study_id, "dashboard:1:note_ver", 7)
    assert shared.writer.propose(shared.writer.propose(trial)).params == trial.params
    assert shared.writer.end(trial, ENDING)
    assert stored(shared).user_attrs == ENDING.user
    assert shared.study._storage.get_study_system_attrs(shared.study._study_id)["dashboard:1:note_ver"] == 1


@pytest.mark.postgres
def test_of_two_proposals_the_first_stands(postgres: SharedStudy) -> None:
    first = postgres.writer.propose(proposal(postgres))
    second = postgres.writer.propose(proposal(postgres, "linear", 1.0))
    assert second.params == first.params == stored(postgres).params
    assert second.distributions == SPACES


@pytest.mark.postgres
def test_nothing_is_written_by_half(postgres: SharedStudy) -> None:
    trial = proposal(postgres, weight=float("nan"))
    with pytest.raises(ValueError, match="nan"):
        postgres.writer.propose(trial)
    assert stored(postgres).params == {}
    with pytest.raises(TypeError):
        postgres.writer.end(trial, replace(ENDING, study={"note": object()}))
    assert (stored(postgres).state, stored(postgres).user_attrs) == (TrialState.RUNNING, {})
