"""Prompt encoding: from prompt texts to text-encoder states, one row per text, and padding of rows to equal length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from optimizer.adapters.families import PipelineClass
from optimizer.errors import UsageError
from optimizer.rendering.text.encodings import encoding_named
from optimizer.rendering.text.prompt_weights import WeightedPrompt, parse_prompt
from optimizer.rendering.text.states import TextStates
from optimizer.rendering.text.weighted_states import clip_chunks, t5_tokens


def encode_texts(
    record: PipelineClass, pipeline: Any, texts: Sequence[str], device: torch.device, skip: int | None
) -> dict[str, TextStates]:
    """Returns the text-encoder states of every text, one row each.

    Unweighted texts that fit into CLIP's context are encoded by diffusers.

    Raises:
        UsageError: a text is longer than T5's limit.
    """
    encoding = encoding_named(record.encoding)
    prompts = {text: parse_prompt(text) for text in texts}
    special = {text for text, prompt in prompts.items() if _is_special(record, pipeline, prompt)}
    states = {text: encoding.weighted(pipeline, prompts[text], device, skip) for text in texts if text in special}
    if plain := [text for text in texts if text not in special]:
        found = encoding.plain(pipeline, [prompts[text].words for text in plain], device, skip)
        states |= {text: {name: rows[i : i + 1] for name, rows in found.items()} for i, text in enumerate(plain)}
    return states


def any_special(record: PipelineClass, pipeline: Any, texts: Iterable[str]) -> bool:
    """Returns whether any text has weights or exceeds CLIP's context; checks the length of all texts.

    Raises:
        UsageError: a text is longer than T5's limit.
    """
    found = [_is_special(record, pipeline, parse_prompt(text)) for text in dict.fromkeys(texts)]
    return any(found)


def _is_special(record: PipelineClass, pipeline: Any, prompt: WeightedPrompt) -> bool:
    _check_length(record, pipeline, prompt)
    if prompt.weighted or not record.chunked:
        return prompt.weighted
    tokenizers = (pipeline.components.get(name) for name in ("tokenizer", "tokenizer_2"))
    return any(len(clip_chunks(tokenizer, prompt)) > 1 for tokenizer in tokenizers if tokenizer is not None)


def _check_length(record: PipelineClass, pipeline: Any, prompt: WeightedPrompt) -> None:
    """Raises UsageError if T5 would truncate the text, since the rest could not affect any image."""
    tokenizer = pipeline.components.get(record.t5_tokenizer)
    if tokenizer is None:
        return
    longest = min(record.t5_length, tokenizer.model_max_length)
    if (count := t5_tokens(tokenizer, prompt)) > longest:
        shown = prompt.words if len(prompt.words) <= 60 else f"{prompt.words[:60]}…"
        problem = f"the prompt {shown!r} has {count} tokens for T5, of which {record.title} reads {longest}"
        raise UsageError(problem, remedy="shorten it")


def pad_states(states: TextStates, blank: TextStates, empty: Callable[[], TextStates], chunk: int) -> tuple[TextStates, TextStates]:
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
        return states, _with_empty_chunks(blank, missing // chunk, empty(), chunk)
    return _with_empty_chunks(states, -missing // chunk, empty(), chunk), blank


def _with_empty_chunks(states: TextStates, missing: int, empty: TextStates, chunk: int) -> TextStates:
    """Returns states with ``missing`` empty chunks inserted after CLIP's states; T5's states, if any, stay at the end."""
    rows, filling = states["prompt_embeds"], empty["prompt_embeds"]
    end = rows.shape[1] - (filling.shape[1] - chunk)
    filled = torch.cat([rows[:, :end], filling[:, :chunk].repeat(1, missing, 1), rows[:, end:]], dim=1)
    return states | {"prompt_embeds": filled}


def length(states: TextStates) -> int:
    """Returns the sequence length of the states of a text; states of equal length can be stacked."""
    return int(states["prompt_embeds"].shape[1])
