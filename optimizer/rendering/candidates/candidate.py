"""What is drawn with in place of the base alone."""

from __future__ import annotations

from optimizer.adapters import Adapter
from optimizer.checkpoints.model import Weights

Candidate = Adapter | Weights
"""A change of some of the base's weights, or other weights altogether."""


def changes(candidate: Candidate | None, part: str) -> bool:
    """Whether a candidate changes a part of the pipeline whose name begins so."""
    if candidate is None:
        return False
    if isinstance(candidate, Adapter):
        return any(path.startswith(part) for path in candidate.modules)
    return any(name.startswith(part) for name, _ in candidate.names)
