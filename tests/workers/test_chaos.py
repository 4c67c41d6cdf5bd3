"""Nothing is lost when workers, the server and connections fail: a short part by default, all of it with MULTILORA_CHAOS=FAULTS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.postgres import Server
from tests.workers.chaos import crew, database, disk, one_worker
from tests.workers.ledgers import Findings
from tests.workers.runs import Sources

pytestmark = pytest.mark.slow
FAULTS = int(os.environ.get("MULTILORA_CHAOS", "0"))


def check(findings: Findings, trials: int) -> None:
    assert findings == Findings(studies=findings.studies, trials=findings.studies * trials)


def test_a_run_that_is_killed_at_random_instants_equals_one_that_is_not(sources: Sources, tmp_path: Path) -> None:
    budget = 12 if FAULTS else 4
    tally = one_worker(sources, tmp_path, FAULTS or 2, seed=0, budget=budget)
    check(tally.findings, budget + 4)


def test_a_run_on_a_bad_disk(sources: Sources, tmp_path: Path) -> None:
    budget = 12 if FAULTS else 4
    check(disk(sources, tmp_path, FAULTS or 4, seed=1, budget=budget).findings, budget + 4)


@pytest.mark.skipif(not FAULTS, reason="takes minutes: set MULTILORA_CHAOS to a number of faults")
def test_workers_of_one_machine_that_are_killed(sources: Sources, tmp_path: Path) -> None:
    check(crew(sources, tmp_path, FAULTS, seed=0).findings, 34)


@pytest.mark.postgres
def test_workers_on_a_database_under_every_kind_of_fault(server: Server, sources: Sources, tmp_path: Path) -> None:
    budget = 40 if FAULTS else 6
    tally = database(server, sources, tmp_path, FAULTS or 3, seed=0, budget=budget, outage=30.0 if FAULTS else 0.0)
    check(tally.findings, budget + 4)
