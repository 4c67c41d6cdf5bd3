"""Text-encoder states of weighted prompts, and of prompts longer than CLIP's context, for each family's encoders.

CLIP encodes chunk by chunk; the states are concatenated along the sequence, as in A1111 and ComfyUI, and the pooled state is that of the
first chunk. T5 encodes the whole text without brackets. A token's weight multiplies its states. In Stable Diffusion 1.x and 2.x a chunk's
states are then rescaled to their original mean: A1111's emphasis "Original". The states of later models are taken before CLIP's final
norm, where the mean may be near zero and dividing by it would be unstable; there they are not rescaled, A1111's "No norm", which it
recommends for XL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from optimizer.rendering.pipeline_class import pipeline_class_of
from optimizer.rendering.text.clip_chunks import Token, split_chunks
from optimizer.rendering.text.prompt_weights import WeightedPrompt

_Chunks = Sequence[Sequence[Token]]


def clip_chunks(tokenizer: Any, prompt: WeightedPrompt) -> list[list[Token]]:
    """Returns the chunks of a parsed prompt; every ``BREAK`` begins a chunk. Spans are tokenised separately, as in A1111."""
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    chunks = []
    for part in prompt.parts:
        numbers = [(tokenizer(span.text, add_special_tokens=False, verbose=False).input_ids, span.weight) for span in part]
        tokens = [(number, weight) for found, weight in numbers for number in found]
        chunks += split_chunks(tokens, tokenizer.model_max_length - 2, comma)
    return chunks


def t5_tokens(tokenizer: Any, prompt: WeightedPrompt) -> int:
    """Returns the number of T5 tokens of a parsed prompt, end token included."""
    return len(tokenizer(prompt.words, verbose=False).input_ids)


def weighted_sd_states(pipeline: Any, prompt: WeightedPrompt, device: torch.device, skip: int | None) -> dict[str, Tensor]:
    """Returns the states of a single CLIP encoder: ``prompt_embeds``, (1, chunks · length, width)."""
    encoder, tokenizer = pipeline.text_encoder, pipeline.tokenizer
    chunks = clip_chunks(tokenizer, prompt)
    numbers, weights = _tables(tokenizer, chunks, device)
    mask = _mask(chunks, numbers) if getattr(encoder.config, "use_attention_mask", False) else None
    out = encoder(numbers, attention_mask=mask, output_hidden_states=True)
    # transformers 5 has no text_model in an encoder without projection
    norm = getattr(encoder, "text_model", encoder).final_layer_norm
    states = norm(out.hidden_states[-(skip + 1)]) if skip else out[0]
    return {"prompt_embeds": _join_chunks(_weight_states(states, weights, keep_mean=True))}


def weighted_xl_states(pipeline: Any, prompt: WeightedPrompt, device: torch.device, skip: int | None) -> dict[str, Tensor]:
    """Returns the states of two CLIP encoders.

    ``prompt_embeds`` has shape (1, chunks · length, sum of widths); ``pooled_prompt_embeds`` comes from the encoder with a projection.
    """
    states, firsts = _pair(pipeline, prompt, device, skip)
    return {"prompt_embeds": states, "pooled_prompt_embeds": next(first for first in firsts if first.ndim == 2)[:1]}


def weighted_sd3_states(pipeline: Any, prompt: WeightedPrompt, device: torch.device, skip: int | None) -> dict[str, Tensor]:
    """Returns the states of two CLIP encoders, all chunks, followed by those of T5.

    ``prompt_embeds`` has shape (1, chunks · length + 256, T5's width); ``pooled_prompt_embeds`` concatenates both pooled states.
    """
    states, firsts = _pair(pipeline, prompt, device, skip)
    whole, _, _, _ = pipeline.encode_prompt([""], None, [prompt.words], device=device, do_classifier_free_guidance=False)
    tail = whole[:, pipeline.tokenizer.model_max_length :]
    if pipeline.tokenizer_3 is not None:  # without T5 they are zeros
        tail = _weight_states(tail, _t5_weights(pipeline.tokenizer_3, prompt, tail), keep_mean=False)
    padded = F.pad(states, (0, tail.shape[-1] - states.shape[-1]))
    return {"prompt_embeds": torch.cat([padded, tail], dim=1), "pooled_prompt_embeds": torch.cat([first[:1] for first in firsts], dim=-1)}


def weighted_flux_states(pipeline: Any, prompt: WeightedPrompt, device: torch.device, skip: int | None) -> dict[str, Tensor]:
    """Returns the states of T5, ``prompt_embeds``, (1, length, width), and CLIP's unweighted ``pooled_prompt_embeds``."""
    length = min(pipeline_class_of(pipeline).t5_length, pipeline.tokenizer_2.model_max_length)
    states, pooled, _ = pipeline.encode_prompt([prompt.words], device=device, max_sequence_length=length)
    weights = _t5_weights(pipeline.tokenizer_2, prompt, states)
    return {"prompt_embeds": _weight_states(states, weights, keep_mean=False), "pooled_prompt_embeds": pooled}


def _pair(pipeline: Any, prompt: WeightedPrompt, device: torch.device, skip: int | None) -> tuple[Tensor, list[Tensor]]:
    """Returns the joined states of two CLIP encoders, and the first output of each: its pooled state if it has a projection."""
    pairs = [(pipeline.text_encoder, pipeline.tokenizer), (pipeline.text_encoder_2, pipeline.tokenizer_2)]
    chunks = [clip_chunks(tokenizer, prompt) for _, tokenizer in pairs]
    most = max(map(len, chunks))
    states, firsts = [], []
    for (encoder, tokenizer), found in zip(pairs, chunks, strict=True):
        numbers, weights = _tables(tokenizer, [*found, *[[]] * (most - len(found))], device)
        out = encoder(numbers, output_hidden_states=True)
        states.append(_weight_states(out.hidden_states[-(skip or 0) - 2], weights, keep_mean=False))
        firsts.append(out[0])
    return _join_chunks(torch.cat(states, dim=-1)), firsts


def _tables(tokenizer: Any, chunks: _Chunks, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns token ids and weights, (chunks, length) each: start, text, end and padding tokens."""
    length, start, end, pad = tokenizer.model_max_length, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    rows = [[(start, 1.0), *chunk, (end, 1.0), *[(pad, 1.0)] * (length - len(chunk) - 2)] for chunk in chunks]
    numbers = torch.tensor([[number for number, _ in row] for row in rows], device=device)
    return numbers, torch.tensor([[weight for _, weight in row] for row in rows], device=device)


def _mask(chunks: _Chunks, numbers: Tensor) -> Tensor:
    """Returns the attention mask, (chunks, length): 1 for start, text and end tokens, 0 for padding."""
    lengths = torch.tensor([len(chunk) + 2 for chunk in chunks], device=numbers.device)
    return (torch.arange(numbers.shape[1], device=numbers.device) < lengths[:, None]).long()


def _t5_weights(tokenizer: Any, prompt: WeightedPrompt, states: Tensor) -> Tensor:
    """Returns the weights of the T5 tokens of a text, (1, length); a token over several weights has that of its last character."""
    weights, length = prompt.weights, states.shape[1]
    found = tokenizer(prompt.words, padding="max_length", max_length=length, truncation=True, return_offsets_mapping=True)
    rows = [weights[end - 1] if end > begin else 1.0 for begin, end in found.offset_mapping]
    return torch.tensor([rows], device=states.device)


def _weight_states(states: Tensor, weights: Tensor, *, keep_mean: bool) -> Tensor:
    """Returns states (chunks, length, width) times weights (chunks, length), computed in fp32 and rounded once.

    ``keep_mean`` rescales every chunk to its original mean, unless all its weights are 1 or its weighted mean is zero.
    """
    before = states.float()
    after = before * weights[..., None]
    if keep_mean:
        was, is_now = (each.mean(dim=(1, 2), keepdim=True) for each in (before, after))
        left = (weights == 1).all(dim=1)[:, None, None] | (is_now == 0)
        after = after * torch.where(left, 1, was / torch.where(left, 1, is_now))  # 0 / 0 that is not used would have a gradient of NaN
    return after.to(states.dtype)


def _join_chunks(states: Tensor) -> Tensor:
    """Returns states of shape (chunks, length, width) reshaped to (1, chunks · length, width)."""
    return states.reshape(1, -1, states.shape[-1])
