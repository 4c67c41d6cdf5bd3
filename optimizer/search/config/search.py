"""Search: which recipes are tried, how many, and for how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from optimizer.search.config.option import Option, Panel, Settings
from optimizer.search.config.values import seconds


class Search(Settings):
    """What is proposed, and when the search ends."""

    budget: Annotated[int, Option(4, Panel.SEARCH, identity=False, per_machine=True)] = Field(
        default=50, description="Recipes to try, beyond the baselines."
    )
    timeout: Annotated[float | None, BeforeValidator(seconds), Option(42, Panel.SEARCH, identity=False, per_machine=True)] = Field(
        default=None, gt=0, description="Start no trial after this time: seconds, or 8h, 90m, 1h30m."
    )
    methods: Annotated[tuple[str, ...], Option(14, Panel.SEARCH)] = Field(
        default=("ties", "dare_linear", "dare_ties", "magnitude_prune"), description="Merge methods to try beside the weighted sum."
    )
    sampler: Annotated[Literal["auto", "gp", "tpe"], Option(15, Panel.SEARCH)] = Field(
        default="auto",
        description="What proposes: a Gaussian process (gp) proposes best, a Parzen estimator (tpe) at once; auto: gp where it can.",
    )
    seed: Annotated[int, Option(6, Panel.SEARCH)] = Field(default=0, ge=0, description="Seeds proposals, prompts and noise.")
    fork: Annotated[str, Option(44, Panel.SEARCH, identity=False)] = Field(
        default="",
        description="Begin a new study of this name beside --out, with the trials of --out that are still valid; "
        "they do not count as part of the budget.",
    )
