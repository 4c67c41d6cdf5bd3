"""Prompt encoding: from prompt texts to text-encoder states, one row per text, and padding of rows to equal length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from optimizer.errors import UsageError
from optimizer.rendering.families import Family, TextStates
from optimizer.rendering.text.prompt_weights import Reading, read
from optimizer.rendering.text.weighted_states import clip_chunks, t5_tokens


def encoded(family: Family, pipeline: Any, texts: Sequence[str], device: torch.device, skip: int | None) -> dict[str, TextStates]:
    """Returns the text-encoder states of every text, one row each.

    Unweighted texts that fit into CLIP's context are encoded by diffusers.

    Raises:
        UsageError: a text is longer than T5's limit.
    """
    readings = {text: read(text) for text in texts}
    special = {text for text, reading in readings.items() if _is_special(family, pipeline, reading)}
    states = {text: family.weigh(pipeline, readings[text], device, skip) for text in texts if text in special}
    if plain := [text for text in texts if text not in special]:
        found = family.encode(pipeline, [readings[text].words for text in plain], device, skip)
        states |= {text: {name: rows[i : i + 1] for name, rows in found.items()} for i, text in enumerate(plain)}
    return states


def any_special(family: Family, pipeline: Any, texts: Iterable[str]) -> bool:
    """Returns whether any text has weights or exceeds CLIP's context; checks the length of all texts.

    Raises:
        UsageError: a text is longer than T5's limit.
    """
    found = [_is_special(family, pipeline, read(text)) for text in dict.fromkeys(texts)]
    return any(found)


def _is_special(family: Family, pipeline: Any, reading: Reading) -> bool:
    _check_length(family, pipeline, reading)
    if reading.weighted or not family.chunked:
        return reading.weighted
    tokenizers = (pipeline.components.get(name) for name in ("tokenizer", "tokenizer_2"))
    return any(len(clip_chunks(tokenizer, reading)) > 1 for tokenizer in tokenizers if tokenizer is not None)


def _check_length(family: Family, pipeline: Any, reading: Reading) -> None:
    """Raises UsageError if T5 would truncate the text, since the rest could not affect any image."""
    name, longest = family.t5
    tokenizer = pipeline.components.get(name)
    if tokenizer is None:
        return
    longest = min(longest, tokenizer.model_max_length)
    if (count := t5_tokens(tokenizer, reading)) > longest:
        shown = reading.words if len(reading.words) <= 60 else f"{reading.words[:60]}…"
        problem = f"the prompt {shown!r} has {count} tokens for T5, of which {family.name} reads {longest}"
        raise UsageError(problem, remedy="shorten it")


def matched(states: TextStates, blank: TextStates, empty: Callable[[], TextStates], chunk: int) -> tuple[TextStates, TextStates]:
    """Returns the states of a text and of the negative prompt, padded with empty chunks to equal length, as in A1111.

    Args:
        states: states of a text.
        blank: states of the negative prompt; empty if the base takes none.
        empty: returns the states of an empty text, one chunk long.
        chunk: number of tokens per chunk, start and end tokens included.
    """
    if not blank or (missing := states["prompt_embeds"].shape[1] - blank["prompt_embeds"].shape[1]) == 0:
        return states, blank
    if missing > 0:
        return states, _filled(blank, missing // chunk, empty(), chunk)
    return _filled(states, -missing // chunk, empty(), chunk), blank


def _filled(states: TextStates, missing: int, empty: TextStates, chunk: int) -> TextStates:
    """Returns states with ``missing`` empty chunks inserted after CLIP's states; T5's states, if any, stay at the end."""
    rows, filling = states["prompt_embeds"], empty["prompt_embeds"]
    end = rows.shape[1] - (filling.shape[1] - chunk)
    filled = torch.cat([rows[:, :end], filling[:, :chunk].repeat(1, missing, 1), rows[:, end:]], dim=1)
    return states | {"prompt_embeds": filled}


def length(states: TextStates) -> int:
    """Returns the sequence length of the states of a text; states of equal length can be stacked."""
    return int(states["prompt_embeds"].shape[1])
