"""Weighted sum, which equals loading all sources together, and weighted mean."""

from __future__ import annotations

from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank, concatenated
from optimizer.merging.algebra.tiles import Slabs
from optimizer.merging.methods.method import Method


def weighted_sum(deltas: Deltas, settings: object, /) -> LowRank:
    """Returns Σ wᵢ · ΔWᵢ by concatenation of the factors: task arithmetic (arXiv 2212.04089, section 2) on LoRA deltas."""
    return concatenated(deltas.terms, deltas.weights)


def model_soup(deltas: Deltas, settings: object, /) -> LowRank:
    """Returns Σ wᵢ · ΔWᵢ / Σ |wᵢ|: the uniform soup of Model Soups (arXiv 2203.05482) at equal weights.

    A source that lacks a module counts as ΔW = 0 there, so the divisor is equal in all modules with equal block weights.
    """
    return concatenated(deltas.terms, deltas.weights / deltas.total)


def summed(values: Slabs, columns: Tensor) -> Tensor:
    """Returns Σ wᵢ · xᵢ of dense values, (b, rows, columns).

    Args:
        values: dense values of the n sources.
        columns: weights of the sources, (n, b, 1, 1).
    """
    return values.merged(lambda parts: total(parts, columns))


def total(parts: list[Tensor], columns: Tensor) -> Tensor:
    """Returns the weighted sum of one tile of rows, computed in place in the first source's tensor."""
    whole = parts[0].mul_(columns[0])
    for part, weight in zip(parts[1:], columns[1:], strict=True):
        whole.addcmul_(part, weight)
    return whole


_CITATION = "task arithmetic, arXiv 2212.04089, section 2"

LINEAR = Method(
    "linear",
    weighted_sum,
    _CITATION,
    "Σ wᵢΔWᵢ",
    cost="factors",
    linear=True,
    reproduces=(
        "every loader: all sources at their weights",
        "mergekit: task_arithmetic",
        "not PEFT's linear nor kohya's merge, which add cross terms",
    ),
)
CONCAT = Method(
    "concat",
    weighted_sum,
    _CITATION,
    "Σ wᵢΔWᵢ at rank Σ rᵢ",
    rank="forbidden",
    cost="factors",
    linear=True,
    reproduces=("PEFT: cat", "not kohya's --concat, which keeps the first source's alpha"),
)
SVD = Method(
    "svd",
    weighted_sum,
    f"{_CITATION}, truncated (Eckart & Young 1936)",
    "the best rank-r approximation of Σ wᵢΔWᵢ",
    rank="required",
    cost="core",
    linear=True,
    reproduces=("PEFT: svd", "kohya: svd_merge_lora without its clamp"),
)
ADD_DIFFERENCE = Method(
    "add_difference",
    weighted_sum,
    f"{_CITATION} (task analogies)",
    "w₁A + w₂B − w₃C",
    cost="factors",
    linear=True,
    commutes=False,
    signs=(1, 1, -1),
    most=3,
    reproduces=("SuperMerger: add difference of whole models, A + α(B − C), at weights 1, α, α",),
)
MODEL_SOUP = Method(
    "model_soup",
    model_soup,
    "Model Soups, arXiv 2203.05482",
    "Σ wᵢΔWᵢ / Σ |wᵢ|",
    cost="factors",
    homogeneous=False,
    reproduces=("mergekit: linear with normalize: true, at positive weights",),
)
ROUTED = Method(
    "routed",
    weighted_sum,
    "SSR-Merge, arXiv 2606.10617, with the router that the recipe's calibration names",
    "Σ wᵢ·upᵢ·(R·down)ᵢ",
    cost="factors",
    linear=True,
    commutes=False,
    calibrated=True,
)
