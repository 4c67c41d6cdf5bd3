"""Distillation LoRAs: those that make a model draw in few steps, which are told by their names and metadata alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

_KEYS = ("ss_output_name", "modelspec.title", "modelspec.tags", "modelspec.description")
_KINDS = {
    "LCM": r"lcm|tcd|pcm",
    "Turbo": r"turbo",
    "Lightning": r"lightning",
    "Hyper-SD": r"hyper[-_ ]?(sd|flux)\w*",
    "DMD2": r"dmd2?",
    "few-step": r"\d{1,2}[-_ ]?steps?",
}
_PATTERNS = {kind: re.compile(rf"(?<![a-z0-9])({pattern})(?![a-z])", re.IGNORECASE) for kind, pattern in _KINDS.items()}
_LONGEST = 2000


def distillation(file_name: str, metadata: Mapping[str, str]) -> str | None:
    """Which kind of distillation (LCM, Turbo, Lightning, …) a LoRA calls itself, or None.

    Such a LoRA changes how many steps and how much guidance a picture needs. Merged with others, it changes them for all, and the
    pictures by which a merge is judged are drawn with the base model's settings.

    Args:
        file_name: of the LoRA, with or without its folder.
        metadata: of the file.
    """
    texts = [re.split(r"[\\\\/]", file_name)[-1], *(metadata.get(key, "")[:_LONGEST] for key in _KEYS)]
    return next((kind for text in texts for kind, pattern in _PATTERNS.items() if pattern.search(text)), None)
