"""Accelerators: the texts ``FILE`` and ``FILE:WEIGHT`` of ``--with``."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from optimizer.errors import UsageError
from optimizer.search.config.values import DEMO, absolute

WITH = "--with"


@dataclass(frozen=True)
class AcceleratorText:
    """One text ``FILE`` or ``FILE:WEIGHT``.

    Attributes:
        file: LoRA file, or ``demo:NAME``.
        weight: factor on its change; finite and not 0.
    """

    file: str
    weight: float = 1.0

    @property
    def demo(self) -> bool:
        """Whether it is a source of the demo world."""
        return self.file.startswith(DEMO)

    def resolved(self) -> AcceleratorText:
        """Returns a copy with an absolute path."""
        return self if self.demo else AcceleratorText(absolute(self.file), self.weight)

    def __str__(self) -> str:
        plain = self.weight == 1 and (self.demo or ":" not in os.path.basename(self.file))
        return self.file if plain else f"{self.file}:{self.weight!r}"


def parse_accelerators(texts: Sequence[str]) -> tuple[AcceleratorText, ...]:
    """Returns the accelerators in texts. What follows the last colon is a weight if it is a number and the whole text is not a file.

    Raises:
        UsageError: a text names no file, or a weight is 0 or not finite.

    Example:
        >>> parse_accelerators(["lcm.safetensors:0.8", "demo:neon"])
        (AcceleratorText(file='lcm.safetensors', weight=0.8), AcceleratorText(file='demo:neon', weight=1.0))
    """
    return tuple(_parsed(text) for text in texts)


def _parsed(text: str) -> AcceleratorText:
    file, _, number = text.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        file, weight = text, 1.0
    if f"{file}:" == DEMO or os.path.exists(absolute(text)):
        file, weight = text, 1.0
    if not file or not math.isfinite(weight) or not weight:
        remedy = "give a LoRA file, and after a colon a weight other than 0, such as lcm.safetensors:0.8"
        raise UsageError(f"got {text!r}", where=WITH, remedy=remedy)
    return AcceleratorText(file, weight)
