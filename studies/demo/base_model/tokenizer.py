"""The demo world's tokenizer: CLIP's byte-pair encoding over a vocabulary in which every caption word is one token."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from studies.demo.drawing.backgrounds import BACKGROUNDS
from studies.demo.drawing.characters import BELLIES, BODIES, EYES, LIMBS, TOPS, Character
from studies.demo.drawing.objects import OBJECTS
from studies.demo.drawing.palette import COLOURS, DARK, LIGHT
from studies.demo.drawing.scenes import PLACES
from studies.demo.drawing.styles import FILLS, INKS, TEXTURES, Style

MAX_LENGTH = 32
_END_OF_WORD = "</w>"
_PRIVATE_USE = 0xE000


def caption_words() -> list[str]:
    """Every word that a caption of the demo world may hold, sorted; the names of the sources are not among them."""
    creatures = (Character(*options, DARK, LIGHT).describe() for options in product(BODIES, EYES, TOPS, LIMBS, BELLIES))
    styles = (Style(f, i, glow=g, texture=t).describe() for f, i, g, t in product(FILLS, INKS, (0.0, 1.0), TEXTURES))
    words = {word for text in (*creatures, *styles) for word in text.replace(",", " ").split()}
    return sorted(words | {"a", "and", *OBJECTS, *COLOURS, *PLACES, *BACKGROUNDS})


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write the tokenizer's files into ``folder`` and return the tokenizer as read back from there.

    As in CLIP, the vocabulary holds the 256 byte symbols, the same at the end of a word, the merges, and last the start and
    the end token; the end token also pads. Words outside ``caption_words`` fall into letters and shorter pieces.
    """
    vocab, merges = _byte_pairs(caption_words())
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_LENGTH).save_pretrained(folder)
    loaded: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return loaded


def _byte_pairs(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-pair encoding trained on ``words`` until each is one token."""
    letters = sorted(ByteLevel.alphabet())
    # the trainer's own end-of-word suffix numbers such symbols in the order of a hash, which differs from run to run: ties too
    final = {letter: chr(_PRIVATE_USE + i) for i, letter in enumerate(letters)}
    spelled = dict.fromkeys(letters, "") | {symbol: letter + _END_OF_WORD for letter, symbol in final.items()}
    learner = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=8192, min_frequency=1, show_progress=False)
    learner.train_from_iterator([word[:-1] + final[word[-1]] for word in words], trainer)
    learnt = json.loads(learner.to_str())["model"]["merges"]
    merges = [tuple("".join(spelled[c] or c for c in piece) for piece in pair) for pair in learnt]
    symbols = [*letters, *(letter + _END_OF_WORD for letter in letters), *(first + second for first, second in merges)]
    return {symbol: index for index, symbol in enumerate(symbols)}, [(first, second) for first, second in merges]
