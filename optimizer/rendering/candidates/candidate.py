"""Candidate: the adapter, the weights or the live modification that are rendered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from optimizer.adapters import Adapter
from optimizer.checkpoints.model import Weights
from optimizer.rendering.prompts import Prompt
from optimizer.rendering.text.states import EncodedPrompts


class LiveCandidate(ABC):
    """Candidate that acts on the modules of a loaded pipeline while they compute; the weights are not changed.

    A renderer enters ``applied``, then calls ``encode`` once, then ``begin`` before each batch.
    """

    @abstractmethod
    def applied(self) -> AbstractContextManager[None]:
        """Returns a context in which the candidate acts; on exit nothing of it is left in the pipeline, even after an exception."""

    @abstractmethod
    def encode(self, prompts: Sequence[Prompt], encoded: Callable[[], EncodedPrompts]) -> EncodedPrompts:
        """Returns the text states to draw with.

        Args:
            prompts: all prompts.
            encoded: encodes all prompts by the text encoders as they are at the moment of the call.
        """

    @abstractmethod
    def begin(self, rows: Sequence[int]) -> None:
        """Announces a batch: the positions of its prompts among those that were encoded, in order."""


Candidate = Adapter | Weights | LiveCandidate
"""Adapter that changes some of the base's weights, full set of weights that replaces them, or live modification."""


def changes(candidate: Candidate | None, part: str) -> bool:
    """Returns whether a candidate changes the weights of a component of the pipeline whose name starts with ``part``."""
    if candidate is None or isinstance(candidate, LiveCandidate):
        return False
    if isinstance(candidate, Adapter):
        return any(path.startswith(part) for path in candidate.modules)
    return any(name.startswith(part) for name, _ in candidate.names)
