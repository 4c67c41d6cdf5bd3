"""Selection of the Optuna sampler for a trial, and its seed."""

from __future__ import annotations

import warnings
from typing import Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, TPESampler

# Up to these limits the Gaussian process proposes the best merges, in under a second; its cost grows with the cube of the trials.
_GP_DIMENSIONS, _GP_TRIALS = 20, 400
Kind = Literal["auto", "gp", "tpe"]


def sampler_for(trial_number: int, *, seed: int, dimensions: int, startup: int, kind: Kind = "auto") -> BaseSampler:
    """Returns the sampler for one trial.

    Samplers do not save their generator state, so a resumed study would repeat its first proposals. A new sampler per trial, seeded by
    (seed, trial number), makes proposals independent of interruptions.

    Args:
        trial_number: number that the trial will get.
        seed: seed of the run.
        dimensions: number of dimensions of the search space.
        startup: number of random proposals before the model is used.
        kind: sampler kind; ``auto`` chooses by dimensions and trials.

    Returns:
        Gaussian process sampler if selected or, for ``auto``, within the limits of dimensions and trials; otherwise a multivariate
        tree-structured Parzen estimator.
    """
    chosen = (seed * 1_000_003 + trial_number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # ``multivariate`` since 2020, ``deterministic_objective`` since 2024
        if kind == "gp" or (kind == "auto" and dimensions <= _GP_DIMENSIONS and trial_number < _GP_TRIALS):
            return GPSampler(seed=chosen, n_startup_trials=startup, deterministic_objective=True)
        return TPESampler(seed=chosen, n_startup_trials=startup, multivariate=True)


def quiet() -> None:
    """Suppresses Optuna's log messages below warnings, because the progress display replaces them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
