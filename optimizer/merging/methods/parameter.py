"""Parameter: a number or a word that a merge method reads, declared once, beside the function that reads it.

The declaration is all there is: recipes get a field of its name, ``optimize merge`` an option, the search a dimension, and
docs/methods.md a line. Methods that share a parameter import one declaration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of one or more merge methods.

    Attributes:
        name: name of the recipe field; must not be that of another field of ``Recipe`` or another option of ``optimize merge``.
        description: a short sentence or two for ``--help`` and docs/methods.md.
        default: value in a recipe that does not give the parameter; its type, float, int or str, is that of all values. It must never
            change, because the hash of a recipe leaves it out.
        start: value at which a search starts, and that ``optimize merge`` gives to a method of which nothing else is said.
        gt, ge, lt, le: bounds that a recipe's number must keep: greater than, greater than or equal to, less than, less than or equal
            to; None for no bound. A number without an upper bound must be finite.
        choices: all words that are allowed; for a number, the values that a search tries, instead of an interval.
        low, high: bounds of the closed interval that a search tries, for a number.
        searched: whether a search varies the parameter; otherwise it keeps ``start``.
    """

    name: str
    description: str
    default: float | str
    start: float | str
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    choices: tuple[str | int, ...] = ()
    low: float = 0.0
    high: float = 1.0
    searched: bool = True

    @property
    def value_type(self) -> Any:
        """Type of the values: float, int, or the Literal of all words."""
        return Literal.__getitem__(self.choices) if isinstance(self.default, str) else type(self.default)

    @property
    def constraints(self) -> dict[str, Any]:
        """Bounds on the values, as keyword arguments of ``pydantic.Field``."""
        bounds = {"gt": self.gt, "ge": self.ge, "lt": self.lt, "le": self.le}
        finite = {"allow_inf_nan": False} if self.value_type is float and self.lt is None and self.le is None else {}
        return {name: bound for name, bound in bounds.items() if bound is not None} | finite
