"""docs/methods.md shows the table of methods, and says of its options only what the code accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from optimizer.errors import RecipeError
from optimizer.merging import METHODS, PARAMETERS
from tests.merging.samples import recipe
from tests.methods import COSTS, DIFFERENCES, allowed, page


def test_the_page_shows_the_table() -> None:
    written = (Path(__file__).parents[3] / "docs" / "methods.md").read_text("utf-8")
    assert written == page(), "run: python -m tests.methods > docs/methods.md"


def test_every_cost_is_explained_and_nothing_else() -> None:
    assert set(COSTS) == {m.cost for m in METHODS.values()}
    assert {o for o, *_ in DIFFERENCES} <= {*PARAMETERS, "rank"}
    for option, value, *_ in DIFFERENCES:
        if PARAMETERS.get(option) and PARAMETERS[option].choices:
            assert value in PARAMETERS[option].choices
    for name, parameter in PARAMETERS.items():
        if name in ("elect_on", "majority", "normalise", "rescale"):
            assert [v for o, v, *_ in DIFFERENCES if o == name] == list(parameter.choices)


OUTSIDE: dict[str, tuple[list[float], list[float]]] = {
    "(0, 1]": ([1.0], [0.0, 1.01]),
    "[0, 1)": ([0.0], [-0.01, 1.0]),
    "[0, 1]": ([0.0, 1.0], [-0.01, 1.01]),
}
WHOLE: dict[str, tuple[list[float], list[float]]] = {
    f"[{least}, {most}]": ([least, most], [least - 1, most + 1]) for least, most in ((1, 20), (1, 100), (1, 100_000), (0, 10_000))
}
BOUNDS: dict[str, tuple[list[float], list[float]]] = {**OUTSIDE, **WHOLE, "≥ 0": ([0.0], [-0.1]), "≥ 1": ([1], [0]), "> 0": ([0.01], [0.0])}


@pytest.mark.parametrize("name", [p.name for p in PARAMETERS.values() if not isinstance(p.default, str)])
def test_the_bounds_that_the_page_gives_are_the_recipes(name: str) -> None:
    method = next(m.name for m in METHODS.values() if m.reads(name))
    inside, outside = BOUNDS[allowed(PARAMETERS[name])]
    for value in inside:
        assert recipe({"method": method, name: value}, 1.0)
    for value in outside:
        with pytest.raises(RecipeError, match=f"recipe: {name}"):
            recipe({"method": method, name: value}, 1.0)
