"""Prompts: what is asked for, with which seed, and on whose behalf."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Role = Literal["style", "character", "concept"]
ROLES: tuple[Role, ...] = ("style", "character", "concept")


@dataclass(frozen=True)
class Prompt:
    """One picture to be rendered.

    Attributes:
        text: what the text encoder reads.
        seed: the user-visible seed of the noise.
        source: index of the source that the prompt asks for, or None for a joint prompt, which asks for all.
    """

    text: str
    seed: int
    source: int | None = None

    @property
    def noise_seed(self) -> int:
        """63-bit seed of the starting noise, a function of text and seed: the same in every candidate."""
        digest = hashlib.sha256(f"{self.seed}\0{self.text}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Subject:
    """What a prompt has to say to ask for a source."""

    name: str
    role: Role
    trigger: str


@dataclass(frozen=True)
class Vocabulary:
    """Neutral words to build prompts from.

    Attributes:
        subjects: things to show where no character is asked for.
        settings: places for one subject.
        wide_settings: places for two or more subjects; ``settings`` where empty.
    """

    subjects: tuple[str, ...]
    settings: tuple[str, ...]
    wide_settings: tuple[str, ...] = ()


GENERAL = Vocabulary(
    subjects=("a house by a river", "a woman reading a book", "a cat on a chair", "an old car", "a tree on a hill", "a bowl of fruit"),
    settings=("in a forest", "on a city street", "on a beach at sunset", "in a kitchen", "in the snow", "in front of a plain wall"),
)


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a search or of a confirmation: every source's own ones first, the joint ones last."""

    prompts: tuple[Prompt, ...]

    def indices(self, source: int | None) -> list[int]:
        """Positions of one source's own prompts, or of the joint prompts for None."""
        return [i for i, prompt in enumerate(self.prompts) if prompt.source == source]

    def __len__(self) -> int:
        return len(self.prompts)


def compose(subjects: Sequence[Subject], vocabulary: Vocabulary, *, own: int, joint: int, seed: int) -> PromptSet:
    """Build a prompt set.

    Args:
        subjects: the sources in order.
        vocabulary: neutral words for everything that no source asks for.
        own: prompts per source that ask for it alone.
        joint: prompts that ask for all sources in one picture.
        seed: chooses words and noise seeds; sets composed with different seeds share no noise.
    """
    rng = np.random.default_rng((seed, 0x9E3779B9))
    prompts = [Prompt(_text([s], vocabulary, rng), _noise(rng), index) for index, s in enumerate(subjects) for _ in range(own)]
    prompts += [Prompt(_text(subjects, vocabulary, rng), _noise(rng)) for _ in range(joint)]
    return PromptSet(tuple(prompts))


def _text(asked: Sequence[Subject], vocabulary: Vocabulary, rng: np.random.Generator) -> str:
    """``subject[ and subject], setting, concept and style triggers``."""
    shown = [s.trigger for s in asked if s.role == "character" and s.trigger] or [str(rng.choice(vocabulary.subjects))]
    settings = vocabulary.wide_settings if len(shown) > 1 and vocabulary.wide_settings else vocabulary.settings
    extra = [s.trigger for role in ("concept", "style") for s in asked if s.role == role and s.trigger]
    return ", ".join([" and ".join(shown), str(rng.choice(settings)), *extra])


def _noise(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
