"""Candidate: the adapter or the weights that are rendered."""

from __future__ import annotations

from optimizer.adapters import Adapter
from optimizer.checkpoints.model import Weights

Candidate = Adapter | Weights
"""Adapter that changes some of the base's weights, or a full set of weights that replaces them."""


def changes(candidate: Candidate | None, part: str) -> bool:
    """Returns whether a candidate changes a component of the pipeline whose name starts with ``part``."""
    if candidate is None:
        return False
    if isinstance(candidate, Adapter):
        return any(path.startswith(part) for path in candidate.modules)
    return any(name.startswith(part) for name, _ in candidate.names)
