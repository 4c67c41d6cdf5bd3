"""Method: the record of a merge method that the search and the merge use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import Change

ElectOn = Literal["raw", "weighted"]
Majority = Literal["total", "frequency"]
Normalise = Literal["count", "weight", "none"]
Rescale = Literal["inverse", "l1", "none"]
Side = Literal["input", "output"]
Cost = Literal["factors", "core", "entries"]


class Settings(Protocol):
    """Recipe fields that a method may read; the fields are documented in ``Recipe``."""

    @property
    def density(self) -> float: ...
    @property
    def epsilon(self) -> float: ...
    @property
    def gamma(self) -> float: ...
    @property
    def elect_on(self) -> ElectOn: ...
    @property
    def majority(self) -> Majority: ...
    @property
    def normalise(self) -> Normalise: ...
    @property
    def rescale(self) -> Rescale: ...
    @property
    def mask_scale(self) -> float: ...
    @property
    def quorum(self) -> int: ...
    @property
    def isotropy(self) -> float: ...
    @property
    def side(self) -> Side: ...
    @property
    def strength(self) -> float: ...
    @property
    def scale(self) -> float: ...
    @property
    def seed(self) -> int: ...


class MergeFunction(Protocol):
    """Signature of every merge method: a pure function from the deltas of a batch of modules to the merged ΔW.

    It returns factors if the result has low rank by construction, else dense matrices (b, out, fan_in) in fp32. The caller compresses
    the result to the recipe's rank.
    """

    def __call__(self, deltas: Deltas, settings: Settings, /) -> Change: ...


@dataclass(frozen=True)
class Parameter:
    """One recipe field that a method reads, and its search space.

    Attributes:
        name: name of the recipe field.
        default: starting value of a search.
        low, high: bounds of the closed search interval, for a number.
        choices: values to search, for a categorical field.
        searched: whether a search varies the field; otherwise it keeps the default.
    """

    name: str
    default: float | str
    low: float = 0.0
    high: float = 1.0
    choices: tuple[str | int, ...] = ()
    searched: bool = True


@dataclass(frozen=True)
class Method:
    """A merge method.

    Attributes:
        name: name of the method in a recipe.
        function: computes the merged ΔW of a batch of modules.
        citation: paper and equation.
        formula: one-line formula for display.
        parameters: recipe fields that the method reads besides weights, block weights, rank and dtype; a recipe that sets any other
            method field is rejected.
        rank: whether the recipe gives an output rank: ``forbidden`` if the result is exact by definition, ``required``, or
            ``optional``, where no rank keeps the method's exact result.
        cost: complexity for a module of shape (m, n) and a sum of ranks R: ``factors`` O((m + n)R), at most a Gram matrix of the factors;
            ``core`` O((m + n)R²); ``entries`` O(mnR), every entry of ΔW.
        linear: whether the merge is linear in the weights.
        homogeneous: whether scaling all weights scales the merge by the same factor; otherwise only the ratios of the weights matter.
        commutes: whether the result is independent of the order of the sources.
        seeded: whether the method draws random numbers.
        signs: sign that the method applies to each source's weight; empty means + for all.
        most: maximum number of sources; 0 means any number.
        calibrated: whether the recipe names a calibration, whose router is applied to the sources before the function is called.
        reproduces: tools that give an equal ΔW, with the settings needed in that tool and in the recipe.
    """

    name: str
    function: MergeFunction
    citation: str
    formula: str
    parameters: tuple[Parameter, ...] = ()
    rank: Literal["forbidden", "required", "optional"] = "optional"
    cost: Cost = "entries"
    linear: bool = False
    homogeneous: bool = True
    commutes: bool = True
    seeded: bool = False
    signs: tuple[int, ...] = ()
    most: int = 0
    calibrated: bool = False
    reproduces: tuple[str, ...] = ()

    def reads(self, field: str) -> bool:
        """Returns whether a recipe field is one of this method's parameters."""
        return any(p.name == field for p in self.parameters)

    def sign(self, index: int) -> int:
        """Returns the sign, 1 or -1, that the method applies to the weight of a source."""
        return self.signs[index] if self.signs else 1
