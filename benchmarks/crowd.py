"""How many workers one PostgreSQL server bears: ``python -m benchmarks.crowd --storage postgresql://…``.

A study with 1, 10, 100, 300, 1000 workers in its registry, each with a running trial of twelve parameters, and as many finished trials as
``--finished``. A few processes then do, as fast as they can, what a worker does about a trial beside proposing and evaluating it: ask for
one, write the proposal down, end it. Printed are

* trials a second, and for how many workers with trials of ``--trial`` seconds that is enough;
* milliseconds for asking for a trial, most of it inside the lock, where workers wait for each other;
* milliseconds for one sign of life, of which each worker gives one in ten seconds, and the share of a core that the crowd's signs take.

Server and processes share this machine's cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import secrets
import time
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from optimizer.search.proposals.sampler import quiet
from optimizer.search.workers.claims import Claims
from optimizer.search.workers.registry import WorkerEntry
from optimizer.search.workers.storage import SharedStudy, heartbeat_seconds, open_database_study
from optimizer.search.workers.trial_writer import TrialResult

SPACES: dict[str, BaseDistribution] = {f"weight:{i}": FloatDistribution(0.0, 1.3) for i in range(12)}
_FOREVER = 1e6


def main() -> None:
    """Print one line a number of workers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crowd", description=__doc__)
    parser.add_argument("--storage", required=True, help="postgresql://…")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 10, 100, 300, 1000])
    parser.add_argument("--finished", type=int, default=200, help="trials that have ended before")
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring")
    parser.add_argument("--trial", type=float, default=60.0, help="seconds that a trial takes")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    quiet()
    print(f"{os.cpu_count()} cores, {asked.processes} processes, {asked.finished} trials have ended")
    print(f"{'workers':>7}{'trials/s':>10}{'enough for':>12}{'asking':>13}{'a sign of life':>16}{'all signs':>11}")
    for workers in asked.workers:
        name = f"crowd-{workers}-{secrets.token_hex(3)}"
        fill(asked.storage, name, workers, asked.finished)
        with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
            done = pool.starmap(work, [(asked.storage, name, asked.seconds)] * asked.processes)
        turns, spent = np.sum([d[0] for d in done]), np.concatenate([d[1] for d in done])
        sign = signing(asked.storage, name)
        rate = float(turns) / asked.seconds
        print(
            f"{workers:>7}{rate:>10.1f}{rate * asked.trial:>12.0f}{np.median(spent) * 1e3:>10.0f} ms{sign * 1e3:>13.1f} ms"
            f"{sign * workers / heartbeat_seconds():>10.0%}",
            flush=True,
        )


def fill(storage: str, name: str, workers: int, finished: int) -> None:
    """Make the study."""
    shared, draw = open_database_study(storage, name, create=True, grace=_FOREVER), np.random.default_rng(0)
    for number in range(workers + finished):
        running = number < workers
        attributes = {"worker": f"w{number}"} if running else {"evaluation": "0" * 64, "artifacts": 0.1}
        params = dict(zip(SPACES, draw.uniform(0, 1.3, len(SPACES)).tolist(), strict=True))
        state = TrialState.RUNNING if running else TrialState.COMPLETE
        shared.study.add_trial(
            create_trial(state=state, value=None if running else 0.5, params=params, distributions=SPACES, user_attrs=attributes)
        )
    for number in range(workers):
        shared.registry.write(WorkerEntry(name=f"w{number}", host="somewhere", pid=number, state="working", trial=number))
    shared.close()


def work(storage: str, name: str, seconds: float) -> tuple[int, Sequence[float]]:
    """Take and end trials for so long; returns how many, and what each ``take`` took, in seconds."""
    quiet()
    shared, draw = open_database_study(storage, name, create=False, grace=_FOREVER), np.random.default_rng(os.getpid())
    claims = Claims(shared.study, shared.lock, shared.registry, shared.writer, f"hand-{os.getpid()}")
    shared.registry.write(WorkerEntry(name=claims.worker, host="here", pid=os.getpid()))
    _turn(shared, claims, draw)
    spent, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        spent.append(_turn(shared, claims, draw))
    shared.close()
    return len(spent), spent


def _turn(shared: SharedStudy, claims: Claims, draw: np.random.Generator) -> float:
    total = int(shared.study.user_attrs.get("total", 10**9))
    begun = time.perf_counter()
    trial = claims.take(total).trial
    took = time.perf_counter() - begun
    assert isinstance(trial, FrozenTrial)
    trial.params, trial.distributions = dict(zip(SPACES, draw.uniform(0, 1.3, len(SPACES)).tolist(), strict=True)), SPACES
    shared.writer.end(shared.writer.propose(trial), TrialResult(0.5, {"evaluation": "0" * 64, "artifacts": 0.1}))
    return took


def signing(storage: str, name: str, times: int = 50) -> float:
    """Seconds that one sign of life takes."""
    shared = open_database_study(storage, name, create=False)
    begun = time.perf_counter()
    for beat in range(times):
        shared.registry.write(WorkerEntry(name="w0", host="somewhere", pid=0, beat=beat))
    took = time.perf_counter() - begun
    shared.close()
    return took / times


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    main()
