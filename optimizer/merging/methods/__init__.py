"""Merge methods by name.

A new method is one function of the signature ``MergeFunction``, with a docstring that cites its paper and equation, and one line in
``METHODS``.
"""

from __future__ import annotations

from optimizer.merging.methods.dare import dare, dare_ties
from optimizer.merging.methods.magnitude import magnitude_prune
from optimizer.merging.methods.method import ElectOn, MergeFunction, Method, Normalise, Parameter, Rescale, Settings
from optimizer.merging.methods.ties import ties
from optimizer.merging.methods.weighted_sum import weighted_sum

__all__ = ["METHODS", "ElectOn", "MergeFunction", "Method", "Normalise", "Parameter", "Rescale", "Settings"]

_KEPT = Parameter("density", default=0.4, low=0.1, high=1.0)
_ELECT = Parameter("elect_on", default="raw", choices=("raw", "weighted"))
_MEAN = Parameter("normalise", default="count", choices=("count", "weight", "none"))
_LAMBDA = Parameter("scale", default=1.0, low=0.5, high=2.0)
_RESCALE = Parameter("rescale", default="inverse", choices=("inverse", "l1", "none"))

_TABLE = (
    Method("linear", weighted_sum, "arXiv 2212.04089, section 2", rank="forbidden", linear=True),
    Method("svd", weighted_sum, "arXiv 2212.04089, section 2, truncated (Eckart-Young theorem)", rank="required", linear=True),
    Method("ties", ties, "arXiv 2306.01708, algorithm 1", (_KEPT, _ELECT, _MEAN, _LAMBDA)),
    Method("dare", dare, "arXiv 2311.03099, equation 1", (_KEPT, _RESCALE), linear=True, seeded=True),
    Method("dare_ties", dare_ties, "arXiv 2311.03099 and 2306.01708", (_KEPT, _RESCALE, _ELECT, _MEAN, _LAMBDA), seeded=True),
    Method("magnitude_prune", magnitude_prune, "arXiv 2306.01708, section 3, step 1", (_KEPT,), linear=True),
)

METHODS: dict[str, Method] = {method.name: method for method in _TABLE}
