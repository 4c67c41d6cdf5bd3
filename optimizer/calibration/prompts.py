"""The prompts that routers are solved on."""

from __future__ import annotations

from collections.abc import Sequence

from optimizer.merging import Recipe
from optimizer.rendering.prompts import PromptSet, Subject, Vocabulary, compose, without_triggers

TRAINED = 144
"""Number of prompts of each kind that a router is trained on. With fewer, what it learns holds for their texts more than for others."""

MEASURED = 24
"""Number of prompts of each kind that activations are measured on, for closed forms and for the preconditioning of a training."""

# Far from every seed that a study composes its own prompts with.
_SEED, _NEUTRAL_SEED = 2_000_003, 4_000_037


def prompts_to_solve_on(subjects: Sequence[Subject], words: Vocabulary, recipe: Recipe) -> PromptSet:
    """Returns the prompts that the router of a recipe is solved on.

    They are own prompts of each source, as many joint ones, and as many without a trigger as the recipe says.

    Args:
        subjects: what each source shows.
        words: words to compose prompts of.
        recipe: recipe of a method that is solved on the live model.
    """
    count = TRAINED if recipe.method_record.needs == "gradients" else MEASURED
    asking = calibration_prompts(subjects, words, recipe.seed, count, count)
    neutral = recipe.neutral_prompts if recipe.method_record.reads("neutral_prompts") else 0
    return PromptSet(asking.prompts + without_triggers(words, neutral, _NEUTRAL_SEED + recipe.seed)) if neutral else asking


def calibration_prompts(subjects: Sequence[Subject], words: Vocabulary, seed: int, own: int, joint: int) -> PromptSet:
    """Returns own and joint prompts with seeds that no evaluation of a study uses.

    Args:
        subjects: what each source shows.
        words: words to compose prompts of.
        seed: seed of the recipe.
        own: number of prompts that ask for each source alone.
        joint: number of prompts that ask for all sources.
    """
    return compose(subjects, words, own=own, joint=joint, seed=_SEED + seed)
