"""CLIP's tokenizer, from the vocabulary that open_clip ships, for models that come without one."""

from __future__ import annotations

from functools import cache

from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPTokenizer

_SPELT = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}


@cache
def clip_tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's tokenizer as transformers has it: 49,408 tokens, texts of 77.

    Args:
        pad: fills texts up; the second tokenizer of SDXL, and that of Stable Diffusion 2, pad with ``!``, the token 0.
    """
    known = SimpleTokenizer()
    ids = {_SPELT.get(token, token): index for token, index in known.encoder.items()}
    return CLIPTokenizer(vocab=ids, merges=list(known.bpe_ranks), pad_token=pad, model_max_length=77)
