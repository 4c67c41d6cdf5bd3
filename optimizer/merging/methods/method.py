"""Method: one way to merge, as the search and the merge itself see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from optimizer.merging.deltas import Deltas
from optimizer.merging.lowrank import Change

ElectOn = Literal["raw", "weighted"]
Normalise = Literal["count", "weight", "none"]
Rescale = Literal["inverse", "l1", "none"]


class Settings(Protocol):
    """What a method may read of a recipe; each field is explained at ``Recipe``."""

    @property
    def density(self) -> float: ...
    @property
    def elect_on(self) -> ElectOn: ...
    @property
    def normalise(self) -> Normalise: ...
    @property
    def rescale(self) -> Rescale: ...
    @property
    def scale(self) -> float: ...
    @property
    def seed(self) -> int: ...


class MergeFunction(Protocol):
    """The signature of every method: a pure function from one module's deltas to the merged change.

    It returns factors where the result has low rank by construction, else the dense matrix (out, fan_in) in fp32. Compressing the
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
        choices: the values to search, for a word.
    """

    name: str
    default: float | str
    low: float = 0.0
    high: float = 1.0
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """A merge method.

    Attributes:
        name: its name in a recipe.
        function: computes one module's merged change.
        citation: paper and equation.
        parameters: the recipe's fields that it reads besides weights, block weights, rank and dtype; a recipe that sets another one
            is refused.
        rank: whether the recipe gives an output rank: ``forbidden`` where the result is exact by definition, ``required``, or
            ``optional``, where none means the full rank min(out, fan_in), exactly.
        linear: whether the merge is linear in the weights.
        commutes: whether the order of the sources does not matter.
        seeded: whether it draws random numbers.
    """

    name: str
    function: MergeFunction
    citation: str
    parameters: tuple[Parameter, ...] = ()
    rank: Literal["forbidden", "required", "optional"] = "optional"
    linear: bool = False
    commutes: bool = True
    seeded: bool = False

    def reads(self, field: str) -> bool:
        """Whether the recipe's field is one of this method's parameters."""
        return any(p.name == field for p in self.parameters)
