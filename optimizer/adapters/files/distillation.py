"""Detects distillation LoRAs (few-step sampling) from their file names and metadata."""

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
    """Returns the kind of distillation (LCM, Turbo, Lightning, …) that the name or metadata of a LoRA states, or None.

    A distillation LoRA changes the number of steps and the guidance scale that an image needs. In a merge, it changes them for the
    whole merge, while the images that score a merge are generated with the base model's settings.

    Args:
        file_name: file name of the LoRA, with or without its folder.
        metadata: metadata of the file header (untrusted).
    """
    texts = [re.split(r"[\\\\/]", file_name)[-1], *(metadata.get(key, "")[:_LONGEST] for key in _KEYS)]
    return next((kind for text in texts for kind, pattern in _PATTERNS.items() if pattern.search(text)), None)
