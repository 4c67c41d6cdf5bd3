"""Search: which recipes are tried, how many, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from optimizer.errors import UsageError
from optimizer.search.config.option import Option, Panel, Settings
from optimizer.search.config.values import seconds

BLOCKS, AUTO, NONE = "--blocks", "auto", "none"
_FOR_LORAS = "is for LoRAs"
# Recipes store weights with four digits.
_FINEST = 0.001


class Search(Settings):
    """What is proposed, and when the search ends."""

    budget: Annotated[int, Option(4, Panel.SEARCH, "N", identity=False, per_machine=True)] = Field(
        default=50, description="Number of recipes to try, in addition to the baselines."
    )
    timeout: Annotated[float | None, BeforeValidator(seconds), Option(42, Panel.SEARCH, "TIME", identity=False, per_machine=True)] = Field(
        default=None,
        gt=0,
        description="Start no trial after this time: seconds, or 90m, 8h, 1h30m. By default there is no limit.",
    )
    methods: Annotated[tuple[str, ...], Option(14, Panel.SEARCH, "METHOD...")] = Field(
        default=("distill", "ssr", "ties", "dare_linear", "dare_ties", "magnitude_prune"),
        description="Merge methods to try besides the weighted sum; by default distill and ssr only with a budget of 20 or more.",
    )
    weights: Annotated[tuple[str, ...], Option(58, Panel.SEARCH, "NAME=LOW:HIGH...", not_for_models=_FOR_LORAS)] = Field(
        default=(),
        description="Range of the weights to try of sources, such as hero=0.4:0.9; 0.1 to 1.3 for those not named. NAME is a source's file "
        "name without its ending, or its position, from 1.",
    )
    freeze: Annotated[tuple[str, ...], Option(59, Panel.SEARCH, "NAME=WEIGHT...", not_for_models=_FOR_LORAS)] = Field(
        default=(), description="Weights of sources that are not searched, such as hero=0.8."
    )
    blocks: Annotated[tuple[str, ...], Option(60, Panel.SEARCH, "BLOCK...")] = Field(
        default=("auto",),
        description="Groups of blocks with weights of their own, such as IN OUT, or none; auto: as many as the budget allows.",
    )
    grid: Annotated[float, Option(61, Panel.SEARCH, "STEP", not_for_models=_FOR_LORAS)] = Field(
        default=0.05, ge=0, le=0.5, description="Weights and block weights to try are multiples of this; 0: any."
    )
    sampler: Annotated[Literal["auto", "gp", "tpe"], Option(15, Panel.SEARCH)] = Field(
        default="auto",
        description="Algorithm that proposes recipes: Gaussian process (gp, best) or Parzen estimator (tpe, fast); "
        "auto: gp where possible.",
    )
    pareto: Annotated[bool, Option(53, Panel.SEARCH, not_for_models="members of a front are exported as LoRAs")] = Field(
        default=False,
        description="Search for a Pareto front, with one axis for each source and one for artifacts. Besides the merge with the best "
        "score, the report shows all that no other beats, and how to export each.",
    )
    no_pruning: Annotated[bool, Option(54, Panel.SEARCH, identity=False)] = Field(
        default=False,
        description="Draw every merge on all prompts. By default one that clearly lags behind the best on half of them is dropped there.",
    )
    patience: Annotated[int | None, Option(57, Panel.SEARCH, "N", identity=False)] = Field(
        default=None,
        ge=1,
        description="End the search when the last N proposals have not raised the best score beyond noise. By default it uses its budget.",
    )
    seed: Annotated[int, Option(6, Panel.SEARCH, "N")] = Field(default=0, ge=0, description="Seed of proposals, prompts and noise.")
    fork: Annotated[str, Option(44, Panel.SEARCH, "NAME", identity=False)] = Field(
        default="",
        description="Start a new study of this name, beside --out, with those trials of --out that are still valid.",
    )


def check_blocks(blocks: Sequence[str]) -> None:
    """Checks that the groups of blocks are ``auto``, ``none``, or names; which names there are depends on the base model's family.

    Raises:
        UsageError: nothing is given, or ``auto`` or ``none`` together with other words.
    """
    if not blocks or (len(blocks) > 1 and {AUTO, NONE} & {word.lower() for word in blocks}):
        remedy = f"give {AUTO}, {NONE}, or names of groups, such as IN OUT"
        raise UsageError(f"got {' '.join(blocks)!r}", where=BLOCKS, remedy=remedy)


def check_grid(grid: float) -> None:
    """Checks that the step of weights is not below what recipes store.

    Raises:
        UsageError: it is.
    """
    if 0 < grid < _FINEST:
        raise UsageError(f"got {grid:g}", where="--grid", remedy=f"give {_FINEST:g} or more, or 0 for weights of any value")
