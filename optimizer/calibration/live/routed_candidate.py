"""Routed candidate: a merge of the sources that is drawn by the branches beside the modules, before any file or ΔW of it exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from optimizer.calibration.live.routed_modules import RoutedModules, Routing
from optimizer.rendering.candidates.candidate import LiveCandidate
from optimizer.rendering.prompts import Prompt
from optimizer.rendering.text.states import EncodedPrompts


class RoutedCandidate(LiveCandidate):
    """A merge with these matrices between the sources' factors.

    Args:
        modules: branches of the sources.
        routing: matrix of every module; a module that is missing computes as the base does.
    """

    def __init__(self, modules: RoutedModules, routing: Routing) -> None:
        self._modules, self._routing = modules, routing

    @contextmanager
    def applied(self) -> Iterator[None]:
        with self._modules.installed(), self._modules.at(self._routing):
            yield

    def encode(self, prompts: Sequence[Prompt], encoded: Callable[[], EncodedPrompts]) -> EncodedPrompts:
        """Encodes the prompts with the branches of the text encoders."""
        return encoded()

    def begin(self, rows: Sequence[int]) -> None:
        """Does nothing: all prompts are drawn alike."""
