"""Method: one way to merge, as the search and the merge itself see it."""

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
    """What a method may read of a recipe; each field is explained at ``Recipe``."""

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
    """The signature of every method: a pure function from the deltas of some modules to the merged changes.

    It returns factors where the result has low rank by construction, else dense matrices (b, out, fan_in) in fp32. Compressing the
    result to the recipe's rank is not its concern.
    """

    def __call__(self, deltas: Deltas, settings: Settings, /) -> Change: ...


@dataclass(frozen=True)
class Parameter:
    """One field of a recipe that a method reads, and where to search it.

    Attributes:
        name: the field.
        default: where a search starts.
        low, high: closed interval to search, for a number.
        choices: the values to search, for a word or a few numbers.
        searched: whether a search proposes values; else it leaves the default.
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
        name: its name in a recipe.
        function: computes some modules' merged changes.
        citation: paper and equation.
        formula: in one line, for people.
        parameters: the recipe's fields that it reads besides weights, block weights, rank and dtype; a recipe that sets another one
            is refused.
        rank: whether the recipe gives an output rank: ``forbidden`` where the result is exact by definition, ``required``, or
            ``optional``, where none means the method's own result, exactly.
        cost: what a module of shape (m, n) and a sum of ranks R costs: ``factors`` O((m + n)R), at most a Gram matrix of the factors;
            ``core`` O((m + n)R²); ``entries`` O(mnR), every entry of ΔW.
        linear: whether the merge is linear in the weights.
        homogeneous: whether a factor on all weights is one on the merge; else only the weights' ratios matter.
        commutes: whether the order of the sources does not matter.
        seeded: whether it draws random numbers.
        signs: for each source the sign that the method gives its weight; empty: + for all.
        most: the greatest number of sources; 0: any number.
        reproduces: the tool, and the settings there and here, with which it gives the same ΔW.
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
    reproduces: tuple[str, ...] = ()

    def reads(self, field: str) -> bool:
        """Whether the recipe's field is one of this method's parameters."""
        return any(p.name == field for p in self.parameters)

    def sign(self, index: int) -> int:
        """The sign that the method gives a source's weight."""
        return self.signs[index] if self.signs else 1
