"""Method: the record of a merge method that recipes, merges, search and documentation use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import Change
from optimizer.merging.methods.parameter import Parameter

Cost = Literal["factors", "core", "entries"]
Need = Literal["deltas", "activations", "gradients"]


class MergeFunction(Protocol):
    """Signature of every merge method: a pure function from the deltas of a batch of modules to the merged ΔW.

    It returns factors if the result has low rank by construction, else dense matrices (b, out, fan_in) in fp32. The caller compresses
    the result to the recipe's rank. The settings are the recipe; each function declares, as a Protocol in its own file, what it reads
    of it: its parameters, and the seed if it draws random numbers.
    """

    def __call__(self, deltas: Deltas, settings: Any, /) -> Change: ...


@dataclass(frozen=True)
class Method:
    """A merge method.

    Attributes:
        name: name of the method in a recipe.
        function: computes the merged ΔW of a batch of modules.
        citation: paper and equation.
        formula: one-line formula for display.
        parameters: parameters that the method reads besides weights, block weights, rank and dtype; a recipe that sets any other
            parameter is rejected.
        needs: inputs besides the recipe: the sources' ``deltas`` alone, or also ``activations`` or ``gradients`` of the base model; those
            of a calibrated method are needed to solve its router, not to apply it.
        rank: whether the recipe gives an output rank: ``forbidden`` if the result is exact by definition, ``required``, or
            ``optional``, where no rank keeps the method's exact result.
        cost: complexity for a module of shape (m, n) and a sum of ranks R: ``factors`` O((m + n)R), at most a Gram matrix of the factors;
            ``core`` O((m + n)R²); ``entries`` O(mnR), every entry of ΔW.
        linear: whether the merge is linear in the weights; what a correction adds does not depend on them.
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
    needs: Need = "deltas"
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

    @property
    def solved(self) -> bool:
        """Whether its router is solved on the live base model."""
        return self.calibrated and self.needs != "deltas"

    def reads(self, field: str) -> bool:
        """Returns whether a recipe field is one of this method's parameters."""
        return any(p.name == field for p in self.parameters)

    def starting_values(self) -> dict[str, float | str]:
        """Returns the starting value of every parameter, by name."""
        return {p.name: p.start for p in self.parameters}

    def sign(self, index: int) -> int:
        """Returns the sign, 1 or -1, that the method applies to the weight of a source."""
        return self.signs[index] if self.signs else 1
