"""Which Optuna sampler proposes the next trial, and with which seed."""

from __future__ import annotations

import warnings
from typing import Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, TPESampler

# Up to these a Gaussian process proposes better merges than anything else and within a second; its cost grows with the cube of the trials.
_GP_DIMENSIONS, _GP_TRIALS = 20, 400
Kind = Literal["auto", "gp", "tpe"]


def sampler_for(trial_number: int, *, seed: int, dimensions: int, startup: int, kind: Kind = "auto") -> BaseSampler:
    """The sampler for one trial.

    Samplers do not save the state of their generators, so a resumed study would repeat its first proposals; a fresh sampler a
    trial, seeded by (seed, trial number), proposes the same whether or not the run was interrupted.

    Args:
        trial_number: the number that the trial will get.
        seed: the run's seed.
        dimensions: size of the search space.
        startup: random proposals before the model takes over.
        kind: the model; ``auto`` chooses by dimensions and trials.

    Returns:
        A Gaussian process for the first hundreds of trials in a space of moderate size, a multivariate tree-structured Parzen estimator
        otherwise.
    """
    chosen = (seed * 1_000_003 + trial_number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # ``multivariate`` since 2020, ``deterministic_objective`` since 2024
        if kind == "gp" or (kind == "auto" and dimensions <= _GP_DIMENSIONS and trial_number < _GP_TRIALS):
            return GPSampler(seed=chosen, n_startup_trials=startup, deterministic_objective=True)
        return TPESampler(seed=chosen, n_startup_trials=startup, multivariate=True)


def quiet() -> None:
    """Keep Optuna's own log lines out of the terminal; the progress display says what matters."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
