"""Parameters of merge methods, as the report's table of trials shows them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from studies.report.svg import decimal

# Fields of every recipe, which are not parameters of a method.
_COMMON = {"method", "weights", "sources", "blocks", "rank", "rank_energy", "prune", "target_mb", "dtype", "seed", "calibration"}
_ALWAYS = ("density", "checkpoint")
_UNITS = {"checkpoint": " %"}


def told_parameters(recipes: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
    """Returns the parameters that tell trials of a study apart, in the order of the recipes: those with several values, and density and
    checkpoint in any case."""
    values: dict[str, set[object]] = {}
    for recipe in recipes:
        for name, value in recipe.items():
            if name not in _COMMON and isinstance(value, str | int | float):
                values.setdefault(name, set()).add(value)
    return tuple(name for name, found in values.items() if name in _ALWAYS or len(found) > 1)


def parameters_text(recipe: Mapping[str, object], told: Collection[str]) -> str:
    """Returns some parameters of a recipe as text: ``density 0.4, elect on raw``; empty if it has none of them."""
    return ", ".join(f"{name.replace('_', ' ')} {with_unit(name, recipe[name])}" for name in told if recipe.get(name) is not None)


def with_unit(name: str, value: object) -> str:
    """Returns the value of a parameter as text, with its unit."""
    text = decimal(value) if isinstance(value, float) else str(value)
    return f"{text}{_UNITS.get(name, '')}"
