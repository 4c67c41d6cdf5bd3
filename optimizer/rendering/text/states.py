"""Text states: what text encoders make of texts, as a pipeline takes them in place of prompts."""

from __future__ import annotations

from torch import Tensor

TextStates = dict[str, Tensor]
"""Text-encoder states passed to a pipeline in place of a prompt, by argument name, one row per text."""

EncodedPrompts = tuple[list[TextStates], list[TextStates]]
"""Text-encoder states of every prompt, and of the negative prompt padded to match, one row each."""
