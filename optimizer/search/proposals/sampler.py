"""Selection of the Optuna sampler for a trial, and its seed."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, TPESampler

# Up to these limits the Gaussian process proposes the best merges, in under three seconds on a grid and under one without; its cost grows
# with the cube of the trials.
_GP_DIMENSIONS, _GP_TRIALS = 20, 400
# In a search for a front the hypervolume is to be computed as well, which takes seconds: 6 with 3 axes, 7 with 4, in 20 dimensions.
_FRONT_AXES, _FRONT_TRIALS = 4, 200
Kind = Literal["auto", "gp", "tpe"]


def sampler_for(trial_number: int, *, seed: int, dimensions: int, startup: int, kind: Kind = "auto", axes: int = 1) -> BaseSampler:
    """Returns the sampler for one trial.

    Samplers do not save their generator state, so a resumed study would repeat its first proposals. A new sampler per trial, seeded by
    (seed, trial number), makes proposals independent of interruptions.

    Args:
        trial_number: number that the trial will get.
        seed: seed of the run.
        dimensions: number of dimensions of the search space.
        startup: number of random proposals before the model is used.
        kind: sampler kind; ``auto`` chooses by dimensions, trials and axes.
        axes: number of axes in a search for a Pareto front; 1 in a search for the best score.

    Returns:
        Gaussian process sampler if selected or, for ``auto``, within the limits of dimensions, trials and axes; otherwise a multivariate
        tree-structured Parzen estimator.
    """
    chosen = (seed * 1_000_003 + trial_number) % 2**32
    trials, most_axes = (_GP_TRIALS, 1) if axes == 1 else (_FRONT_TRIALS, _FRONT_AXES)
    suited = dimensions <= _GP_DIMENSIONS and trial_number < trials and axes <= most_axes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # ``multivariate`` since 2020, ``deterministic_objective`` since 2024
        if kind == "gp" or (kind == "auto" and suited):
            return _Gaussian(seed=chosen, n_startup_trials=startup, deterministic_objective=True)
        return TPESampler(seed=chosen, n_startup_trials=startup, multivariate=True)


class _Gaussian(GPSampler):
    """Optuna's Gaussian process sampler, which may know trials off the grid or outside the ranges of the search.

    It models them as they are. But its search for the next trial begins at the best known one, which the search along a grid of more than
    16 values asserts to be on the grid (``optuna._gp.optim_mixed``), so here it begins at the nearest proposal.
    """

    def _optimize_acqf(self, acqf: Any, best_params: NDArray[np.float64] | None) -> NDArray[np.float64]:
        found: NDArray[np.float64] = super()._optimize_acqf(acqf, best_params if best_params is None else _inside(acqf, best_params))
        return found


def _inside(acqf: Any, params: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns normalized parameters, (n, dimensions), moved to the nearest ones that can be proposed."""
    space, moved = acqf.search_space, params.copy()
    moved[:, space.continuous_indices] = moved[:, space.continuous_indices].clip(0, 1)
    for index, choices in zip(space.discrete_indices, space.get_choices_of_discrete_params(), strict=True):
        moved[:, index] = choices[np.abs(moved[:, index, None] - choices).argmin(axis=1)]
    return moved


def quiet() -> None:
    """Suppresses Optuna's log messages below warnings, because the progress display replaces them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
