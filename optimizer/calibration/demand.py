"""Memory demand of solving a merge, from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from optimizer.calibration.gradient_fallback import GradientFallback
from optimizer.calibration.live.model import LiveModel
from optimizer.calibration.training import BATCH
from optimizer.calibration.trajectories import STEPS, Points
from optimizer.merging import Recipe
from optimizer.rendering.memory.free import amount
from optimizer.rendering.prompts import PromptSet

_TRAINED, _WHITENED = 4, 2  # matrices: parameter, gradient, both moments of Adam; both factors of the whitening


@dataclass(frozen=True)
class SolvingDemand:
    """What solving a merge holds in memory beside what drawing needs, in bytes, without the activations of the passes over the model.

    Attributes:
        factors: concatenated factors of all sources, on the device.
        routers: routers, with the state of the optimiser where they are trained, in the computer's memory.
        moments: second moments of what the modules read, in the computer's memory.
        points: number of points of the trajectories.
        trajectories: noisy latents and the composition's outputs at these points, in the computer's memory.
    """

    factors: int
    routers: int
    moments: int
    points: int
    trajectories: int

    @classmethod
    def of(cls, model: LiveModel, recipe: Recipe, prompts: PromptSet, points: Points | None = None) -> SolvingDemand:
        """Returns the demand of solving a recipe.

        Args:
            model: live model of the sources.
            recipe: recipe of a method that is solved on the live model.
            prompts: prompts that the recipe is solved on.
            points: points of the prompts' trajectories; None before they are drawn.
        """
        modules, renderer, method = model.modules, model.renderer, recipe.method_record
        numbers, squares = (sum(sum(ranks) ** power for ranks in modules.ranks.values()) for power in (1, 2))
        trained = method.needs == "gradients"
        diagonal = _TRAINED * numbers if recipe.method == "zip" else (_TRAINED + _WHITENED) * squares
        groups = len(torch.unique(model.asked(prompts.prompts), dim=0))
        again = 3 * groups if method.reads("rounds") else 0  # of the sources, of the merge, and crossed
        mean = int(trained or (isinstance(recipe.rank, int) and recipe.truncation == "outputs"))
        count = len(prompts) * renderer.with_steps(STEPS).calls if points is None else len(points)
        return cls(
            factors=sum(factor.nbytes for path in modules.ranks for factor in modules.factors(path)),
            routers=(diagonal if trained else squares) * torch.float32.itemsize,
            moments=(groups + again + mean) * squares * torch.float64.itemsize,
            points=count,
            trajectories=count * renderer.latent_size * (renderer.dtype.itemsize + torch.float32.itemsize),
        )


def describe_solving(demand: SolvingDemand, recipe: Recipe, device: torch.device, fallback: GradientFallback) -> str:
    """Returns one line about the memory that solving a recipe needs beside drawing, and about how gradients are computed."""
    trained = recipe.method_record.needs == "gradients"
    held = [
        f"{amount(demand.routers)} of routers{' with the state of their training' if trained else ''}",
        f"{amount(demand.moments)} of second moments",
        f"{amount(demand.trajectories)} of trajectories ({demand.points} points)",
    ]
    factors = f"{amount(demand.factors)} of factors"
    main = f"{', '.join(held[:-1])} and {held[-1]} in the computer's memory"
    where = f"{factors}, {main}" if device.type == "cpu" else f"{factors} on {device.type}; {main}"
    return f"solving {recipe.method} holds beside drawing: {where}" + (f"; {_gradients(fallback)}" if trained else "")


def _gradients(fallback: GradientFallback) -> str:
    """Returns how the gradients of a step are computed, as far as that is known."""
    if not fallback.fitted:
        return f"gradients of {BATCH} points at once, of fewer where memory does not suffice"
    parts = "" if fallback.part >= BATCH else f", {fallback.part} at once"
    checkpointed = ", with gradient checkpointing" if fallback.checkpointed else ""
    return f"gradients of {BATCH} points{parts or ' at once'}{checkpointed}, as fitted before"
