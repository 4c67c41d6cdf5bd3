"""An independent way to the shares: NumPy's least squares and SciPy's geometric mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gmean


def share(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares (k,) of the effects u (k, n, d) in v (n, d)."""
    axes, moved = u.reshape(len(u), -1), v.reshape(-1)
    coefficients = np.linalg.lstsq(axes.T, moved, rcond=None)[0]
    power = (axes**2).sum(axis=1)
    pairs = zip(coefficients.clip(0, 1), (axes @ moved / power).clip(0, 1), strict=True)
    parts = np.array([gmean(pair, weights=(1, 2)) if min(pair) > 0 else 0.0 for pair in pairs])
    strange = ((moved - coefficients @ axes) ** 2).sum() / power.mean()
    return seen(parts / (1 + max(strange - 0.5, 0) / 4))


def seen(part: NDArray[np.float64]) -> NDArray[np.float64]:
    """The visible share of a part of an effect, by its odds, of which a third remains after they are squared."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(1 / (1 + 3 * ((1 - part) / part) ** 2))
