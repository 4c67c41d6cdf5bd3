"""Prompts: text, seed and requested source of each image, and composition of prompt sets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Role = Literal["style", "character", "concept"]
ROLES: tuple[Role, ...] = ("style", "character", "concept")

NOTHING = -1
"""``Prompt.source`` of prompts that ask for no source."""

_SEEDS = 1 << 16  # exceeds the number of prompts in any set


@dataclass(frozen=True)
class Prompt:
    """Prompt of one image.

    Attributes:
        text: prompt text for the text encoders.
        seed: user-visible seed of the noise.
        source: index of the source that the prompt asks for, or None for a joint prompt, which asks for all sources; ``NOTHING`` for none.
    """

    text: str
    seed: int
    source: int | None = None

    @property
    def noise_seed(self) -> int:
        """63-bit seed of the initial noise, a function of text and seed, and so equal for every candidate."""
        digest = hashlib.sha256(f"{self.seed}\0{self.text}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Subject:
    """Prompt information of a source.

    Attributes:
        name: name of the source.
        role: content of the source: style, character or concept.
        trigger: trigger words of the source; empty if it needs none.
        prompts: complete prompts for the source, trigger included, used in place of composed ones.
    """

    name: str
    role: Role
    trigger: str
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vocabulary:
    """Neutral words for composing prompts, and the joint prompts that are not composed.

    Attributes:
        subjects: subjects for prompts without a character.
        settings: places for one subject.
        wide_settings: places for two or more subjects; if empty, ``settings`` is used.
        joint: complete prompts that ask for all sources, triggers included, used in place of composed ones.
    """

    subjects: tuple[str, ...]
    settings: tuple[str, ...]
    wide_settings: tuple[str, ...] = ()
    joint: tuple[str, ...] = ()


@dataclass(frozen=True)
class PromptSet:
    """Prompts of a search or of a confirmation: each source's own prompts first, joint prompts last."""

    prompts: tuple[Prompt, ...]

    def indices(self, source: int | None) -> list[int]:
        """Returns the positions of one source's own prompts, or of the joint prompts for None."""
        return [i for i, prompt in enumerate(self.prompts) if prompt.source == source]

    def __len__(self) -> int:
        return len(self.prompts)


def always_asked(subjects: Sequence[Subject]) -> frozenset[int]:
    """Returns the indices of the sources that every prompt asks for: those without a trigger, which no prompt can lack."""
    return frozenset(k for k, subject in enumerate(subjects) if not subject.trigger)


def asked_by_text(text: str, subjects: Sequence[Subject]) -> tuple[bool, ...]:
    """Returns which sources a text asks for: those whose triggers it holds, in any case of letters, and those without a trigger.

    Example:
        >>> subjects = [Subject("hero", "character", "zorg"), Subject("ink", "style", "")]
        >>> asked_by_text("Zorg in a forest", subjects), asked_by_text("a forest", subjects)
        ((True, True), (False, True))
    """
    return tuple(subject.trigger.lower() in text.lower() for subject in subjects)


def compose(
    subjects: Sequence[Subject], vocabulary: Vocabulary, *, own: int, joint: int, seed: int, seen: PromptSet | None = None
) -> PromptSet:
    """Composes a prompt set.

    Args:
        subjects: prompt information of the sources, in order.
        vocabulary: neutral words for everything that no source provides.
        own: number of prompts per source that ask for it alone.
        joint: number of prompts that ask for all sources in one image.
        seed: seed of the choice of words; the i-th prompt has the seed ``seed · 65536 + i``, so that sets of different seeds share none.
        seen: prompts whose texts are reused only if no other texts are left.
    """
    import numpy as np  # imported here to keep the command-line help fast

    rng = np.random.default_rng(seed)
    known = {prompt.text for prompt in seen.prompts} if seen else set()
    asked: list[tuple[int | None, str]] = []
    for source, subject in enumerate(subjects):
        asked += [(source, text) for text in _draw_texts(_own_texts(subject, vocabulary), own, rng, known)]
    asked += [(None, text) for text in _draw_texts(vocabulary.joint or _texts(subjects, vocabulary), joint, rng, known)]
    return PromptSet(tuple(Prompt(text, seed * _SEEDS + i, source) for i, (source, text) in enumerate(asked)))


def without_triggers(vocabulary: Vocabulary, count: int, seed: int) -> tuple[Prompt, ...]:
    """Composes prompts that ask for no source, of neutral subjects and settings.

    Args:
        vocabulary: neutral words.
        count: number of prompts.
        seed: seed of the choice of words, and of the noise as in ``compose``.
    """
    import numpy as np  # imported here to keep the command-line help fast

    texts = _draw_texts(_texts([], vocabulary), count, np.random.default_rng(seed), set())
    return tuple(Prompt(text, seed * _SEEDS + i, NOTHING) for i, text in enumerate(texts))


def _own_texts(subject: Subject, vocabulary: Vocabulary) -> Sequence[str]:
    return subject.prompts or _texts([subject], vocabulary)


def _texts(asked: Sequence[Subject], vocabulary: Vocabulary) -> list[str]:
    """Returns all texts that can be composed: ``subject[ and subject], setting, concept and style triggers``."""
    characters = [s.trigger for s in asked if s.role == "character" and s.trigger]
    shown = [" and ".join(characters)] if characters else vocabulary.subjects
    settings = vocabulary.wide_settings if len(characters) > 1 and vocabulary.wide_settings else vocabulary.settings
    extra = [s.trigger for role in ("concept", "style") for s in asked if s.role == role and s.trigger]
    return [", ".join([subject, setting, *extra]) for subject, setting in product(shown, settings)]


def _draw_texts(texts: Sequence[str], count: int, rng: np.random.Generator, known: Set[str]) -> list[str]:
    """Returns ``count`` texts in random order, known ones last; a text is repeated only after all others were used."""
    order = sorted((texts[i] for i in rng.permutation(len(texts))), key=known.__contains__)
    return [order[i % len(order)] for i in range(count)]
