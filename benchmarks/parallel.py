"""What parallel workers cost the search in quality: ``python -m benchmarks.parallel``.

The search's own sampler rule proposes recipes to 1, 4, … simulated workers, which finish when they finish: a proposal knows the results so
far, and of the running trials only where they are. Evaluations cost nothing; they come from synthetic landscapes that look like a merge of
two sources: what each keeps saturates with its weight, suffers from the other's, by block, and too much of everything is damage.
Values are relative to what the first number of workers finds.
"""

from __future__ import annotations

import argparse
import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import optuna

from optimizer.search.proposals.sampler import quiet, sampler_for

GROUPS = 4
METHODS = {"linear": 0.0, "ties": 0.02, "dare_linear": -0.02, "dare_ties": 0.01, "magnitude_prune": 0.03}
DIMENSIONS = 2 + 2 * GROUPS + 2
STARTS = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5), (0.707, 0.707), (0.8, 0.8))
"""Weights that a study begins with: each source alone, the stack, the naive merge, and what people try first."""


@dataclass(frozen=True)
class Landscape:
    """A merge of two sources, without pictures.

    Attributes:
        share: share of each source's effect in each block, (2, GROUPS), rows sum to 1.
        clash: how much the other source disturbs it there, (2, GROUPS).
        best_density: where pruning harms least.
    """

    share: np.ndarray
    clash: np.ndarray
    best_density: float

    @classmethod
    def of(cls, seed: int) -> Landscape:
        """The landscape of a seed."""
        draw = np.random.default_rng(seed)
        return cls(draw.dirichlet(np.ones(GROUPS), size=2), draw.uniform(0.1, 0.7, (2, GROUPS)), draw.uniform(0.3, 0.8))

    def value(self, trial: optuna.Trial) -> float:
        """The score of a proposal: the weaker source, less damage; at most 1."""
        weights = np.array([trial.suggest_float(f"weight:{i}", 0.0, 1.3) for i in range(2)])
        blocks = np.array([[trial.suggest_float(f"block:{i}:{g}", 0.5, 1.5) for g in range(GROUPS)] for i in range(2)])
        method = trial.suggest_categorical("method", list(METHODS))
        density = trial.suggest_float("density", 0.1, 1.0)
        strength = weights[:, None] * blocks
        kept = (self.share * (1 - np.exp(-2.5 * strength) - self.clash * strength[::-1] ** 2)).sum(1)
        pruned = 0.0 if method == "linear" else (density - self.best_density) ** 2 / 4
        damage = 0.15 * max(0.0, float((strength**2).mean()) - 1.0) + pruned
        return float(kept.min()) + METHODS[method] - damage


def main() -> None:
    """Print one line a number of workers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parallel", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1000])
    parser.add_argument("--budget", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=2, help="landscapes")
    asked = parser.parse_args()
    quiet()
    began = time.perf_counter()
    print(f"{'workers':>7}{'best value':>12}{'relative':>10}{'worst seed':>12}{'time':>8}{'speed-up':>10}")
    reference: list[tuple[float, float]] = []
    for workers in asked.workers:
        runs = [run(seed, workers, asked.budget) for seed in range(asked.seeds)]
        reference = reference or runs
        row(workers, runs, reference)
    print(f"{asked.seeds} landscapes, {asked.budget} trials, {DIMENSIONS} dimensions, optuna {optuna.__version__}: ", end="")
    print(f"{time.perf_counter() - began:.0f} s")


def run(seed: int, workers: int, budget: int) -> tuple[float, float]:
    """Search one landscape; returns the best value and the simulated time, in durations of one trial."""
    landscape, draw = Landscape.of(seed), np.random.default_rng(seed)
    study = optuna.create_study(direction="maximize")
    for weights in STARTS:
        study.enqueue_trial(start(*weights))
    running: list[tuple[float, int, float]] = []
    trials: dict[int, optuna.Trial] = {}
    now = 0.0
    for number in range(budget):
        if len(running) == workers:
            now = ended(study, running, trials)
        study.sampler = sampler_for(number, seed=seed, dimensions=DIMENSIONS, startup=len(STARTS) + min(4, budget // 4))
        trials[number] = study.ask()
        heapq.heappush(running, (now + draw.lognormal(0, 0.2), number, landscape.value(trials[number])))
    while running:
        now = ended(study, running, trials)
    return study.best_value, now


def start(first: float, second: float) -> dict[str, object]:
    """A weighted sum."""
    blocks = {f"block:{i}:{g}": 1.0 for i in range(2) for g in range(GROUPS)}
    return {"weight:0": first, "weight:1": second, "method": "linear", "density": 1.0} | blocks


def ended(study: optuna.Study, running: list[tuple[float, int, float]], trials: dict[int, optuna.Trial]) -> float:
    """Tell the trial that ends first; returns when that is."""
    when, number, value = heapq.heappop(running)
    study.tell(trials.pop(number), value)
    return when


def row(workers: int, runs: Sequence[tuple[float, float]], reference: Sequence[tuple[float, float]]) -> None:
    """Print the best values relative to those of the reference."""
    shares = [value / best for (value, _), (best, _) in zip(runs, reference, strict=True)]
    when, slow = fmean(t for _, t in runs), fmean(t for _, t in reference)
    line = f"{workers:>7}{fmean(v for v, _ in runs):>12.3f}{fmean(shares):>10.1%}{min(shares):>12.1%}{when:>8.0f}{slow / when:>9.1f}×"
    print(line, flush=True)


if __name__ == "__main__":
    main()
