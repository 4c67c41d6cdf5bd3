"""The prompts that routers are solved on."""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.rendering.prompts import PromptSet, Subject, Vocabulary, compose

OWN, JOINT = 48, 48  # with 16 and 24, what is learnt holds for the words of these prompts alone
"""Numbers of prompts that ask for each source alone, and of those that ask for all."""

# Far from every seed that a study composes its own prompts with.
_SEED = 2_000_003


def calibration_prompts(subjects: Sequence[Subject], words: Vocabulary, seed: int, own: int = OWN, joint: int = JOINT) -> PromptSet:
    """Returns own and joint prompts with seeds that no evaluation of a study uses.

    Args:
        subjects: what each source shows.
        words: words to compose prompts of.
        seed: seed of the recipe.
        own: number of prompts that ask for each source alone.
        joint: number of prompts that ask for all sources.
    """
    return compose(subjects, words, own=own, joint=joint, seed=_SEED + seed)
