"""Texts: from prompts as people write them to what a pipeline is called with, one row each, and how rows of unlike length go together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from optimizer.errors import UsageError
from optimizer.rendering.families import Family, TextStates
from optimizer.rendering.text.prompt_weights import Reading, read
from optimizer.rendering.text.weighted_states import clip_chunks, t5_tokens


def encoded(family: Family, pipeline: Any, texts: Sequence[str], device: torch.device, skip: int | None) -> dict[str, TextStates]:
    """States of every text, of one row each. Texts without weights that CLIP reads at once are encoded by diffusers itself.

    Raises:
        UsageError: a text is longer than T5 reads.
    """
    readings = {text: read(text) for text in texts}
    special = {text for text, reading in readings.items() if _is_special(family, pipeline, reading)}
    states = {text: family.weigh(pipeline, readings[text], device, skip) for text in texts if text in special}
    if plain := [text for text in texts if text not in special]:
        found = family.encode(pipeline, [readings[text].words for text in plain], device, skip)
        states |= {text: {name: rows[i : i + 1] for name, rows in found.items()} for i, text in enumerate(plain)}
    return states


def any_special(family: Family, pipeline: Any, texts: Iterable[str]) -> bool:
    """Whether a text is more than words that CLIP reads at once, all texts checked.

    Raises:
        UsageError: one is longer than T5 reads.
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
    """Raise where T5 would read the beginning alone: what is cut off cannot show in any picture."""
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
    """Two rows, the shorter one filled up with empty chunks, as A1111 does, so that both have one length.

    Args:
        states: of a text.
        blank: of the negative prompt; nothing where the base takes none.
        empty: gives those of a text of no words, one chunk long.
        chunk: tokens of one, start and end included.
    """
    if not blank or (missing := states["prompt_embeds"].shape[1] - blank["prompt_embeds"].shape[1]) == 0:
        return states, blank
    if missing > 0:
        return states, _filled(blank, missing // chunk, empty(), chunk)
    return _filled(states, -missing // chunk, empty(), chunk), blank


def _filled(states: TextStates, missing: int, empty: TextStates, chunk: int) -> TextStates:
    """With so many empty chunks after CLIP's; what follows these, as T5's states do, still follows."""
    rows, filling = states["prompt_embeds"], empty["prompt_embeds"]
    end = rows.shape[1] - (filling.shape[1] - chunk)
    filled = torch.cat([rows[:, :end], filling[:, :chunk].repeat(1, missing, 1), rows[:, end:]], dim=1)
    return states | {"prompt_embeds": filled}


def length(states: TextStates) -> int:
    """How many rows the states of a text have: those of one length can be stacked."""
    return int(states["prompt_embeds"].shape[1])
