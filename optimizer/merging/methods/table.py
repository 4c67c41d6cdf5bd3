"""Table of all merge methods and their parameters: the source of recipe fields, search space, options and ``docs/methods.md``."""

from __future__ import annotations

from optimizer.merging.methods.element_wise.breadcrumbs import BREADCRUMBS, BREADCRUMBS_TIES
from optimizer.merging.methods.element_wise.consensus import CONSENSUS
from optimizer.merging.methods.element_wise.dare import DARE_LINEAR, DARE_TIES
from optimizer.merging.methods.element_wise.della import DELLA_LINEAR, DELLA_TIES
from optimizer.merging.methods.element_wise.magnitude import MAGNITUDE_PRUNE
from optimizer.merging.methods.element_wise.ties import TIES
from optimizer.merging.methods.method import Method
from optimizer.merging.methods.parameter import Parameter
from optimizer.merging.methods.solved import DISTILL, ITERIS, SSR, ZIP
from optimizer.merging.methods.spectral.core import CORE
from optimizer.merging.methods.spectral.iso import ISO
from optimizer.merging.methods.spectral.knots import KNOTS, KNOTS_DARE
from optimizer.merging.methods.spectral.orthogonalize import ORTHOGONALIZE
from optimizer.merging.methods.spectral.tsv import TSV
from optimizer.merging.methods.spherical.karcher import KARCHER
from optimizer.merging.methods.spherical.slerp import NUSLERP, SLERP
from optimizer.merging.methods.weighted_sum import ADD_DIFFERENCE, CONCAT, LINEAR, MODEL_SOUP, ROUTED, SVD

_TABLE = (
    *(LINEAR, CONCAT, SVD, ADD_DIFFERENCE, MODEL_SOUP),
    *(SLERP, NUSLERP, KARCHER),
    TIES,
    *(DARE_LINEAR, DARE_TIES),
    *(DELLA_LINEAR, DELLA_TIES),
    *(BREADCRUMBS, BREADCRUMBS_TIES),
    MAGNITUDE_PRUNE,
    CONSENSUS,
    *(KNOTS, KNOTS_DARE),
    CORE,
    TSV,
    ISO,
    ORTHOGONALIZE,
    *(DISTILL, SSR, ITERIS, ZIP),
    ROUTED,
)
METHODS: dict[str, Method] = {method.name: method for method in _TABLE}
"""Merge methods by name."""

PARAMETERS: dict[str, Parameter] = {p.name: p for method in _TABLE for p in method.parameters}
"""Parameters of all methods by name, in the order of the table."""
