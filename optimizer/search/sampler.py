"""Which Optuna sampler proposes the next trial, and with which seed."""

from __future__ import annotations

import warnings

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, TPESampler

_GP_DIMENSIONS = 12


def sampler_for(trial_number: int, *, seed: int, dimensions: int, conditional: bool, startup: int) -> BaseSampler:
    """The sampler for one trial.

    Samplers do not save the state of their generators, so a resumed study would repeat its first proposals; a fresh sampler a
    trial, seeded by (seed, trial number), proposes the same whether or not the run was interrupted.

    Args:
        trial_number: the number that the trial will get.
        seed: the run's seed.
        dimensions: size of the search space.
        conditional: whether some parameters exist only for some values of others.
        startup: random proposals before the model takes over.

    Returns:
        A Gaussian process for small unconditional spaces, where it is best at 50 trials; a multivariate tree-structured Parzen
        estimator otherwise.
    """
    chosen = (seed * 1_000_003 + trial_number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # ``group`` since 2021, ``deterministic_objective`` since 2024
        if not conditional and dimensions <= _GP_DIMENSIONS:
            return GPSampler(seed=chosen, n_startup_trials=startup, deterministic_objective=True)
        return TPESampler(seed=chosen, n_startup_trials=startup, multivariate=True, group=conditional)


def quiet() -> None:
    """Keep Optuna's own log lines out of the terminal; the progress display says what matters."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
