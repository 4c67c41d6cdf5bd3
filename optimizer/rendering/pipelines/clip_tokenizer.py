"""CLIP's tokenizer, built from open_clip's vocabulary, for models that come without one."""

from __future__ import annotations

from functools import cache

from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPTokenizer

_SPELT = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}


@cache
def clip_tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """Returns CLIP's tokenizer in the format of transformers: 49,408 tokens, texts of 77 tokens.

    Args:
        pad: padding token; the second tokenizer of SDXL, and that of Stable Diffusion 2, pad with ``!``, token 0.
    """
    known = SimpleTokenizer()
    ids = {_SPELT.get(token, token): index for token, index in known.encoder.items()}
    return CLIPTokenizer(vocab=ids, merges=list(known.bpe_ranks), pad_token=pad, model_max_length=77)
