"""An independent way to the shares: NumPy's least squares and SciPy's geometric mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gmean


def share(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares (k,) of the effects u (k, n, d) in v (n, d)."""
    axes, moved = u.reshape(len(u), -1), v.reshape(-1)
    coefficients = np.linalg.lstsq(axes.T, moved, rcond=None)[0].clip(0, 1)
    projections = (axes @ moved / (axes**2).sum(axis=1)).clip(0, 1)
    return np.array([gmean(pair, weights=(1, 2)) if min(pair) > 0 else 0.0 for pair in zip(coefficients, projections, strict=True)])
