"""Parameters that unrelated methods share, and the settings through which functions read them."""

from __future__ import annotations

from typing import Protocol

from optimizer.merging.methods.parameter import Parameter

DENSITY = Parameter(
    name="density",
    description="Share of the entries of ΔW that each source keeps. With tsv, the share of its singular directions.",
    default=1.0,
    start=0.4,
    gt=0,
    le=1,
    low=0.1,
    high=1.0,
)
SCALE = Parameter(
    name="scale",
    description="Factor on the whole merged change. The TIES paper calls it λ.",
    default=1.0,
    start=1.0,
    gt=0,
    low=0.5,
    high=2.0,
    searched=False,  # redundant with the weights
)


class DensitySettings(Protocol):
    """Settings of a method that reads ``density``."""

    @property
    def density(self) -> float: ...


class ScaleSettings(Protocol):
    """Settings of a method that reads ``scale``."""

    @property
    def scale(self) -> float: ...


class SeedSettings(Protocol):
    """Settings of a method that draws random numbers; every recipe has a seed."""

    @property
    def seed(self) -> int: ...
