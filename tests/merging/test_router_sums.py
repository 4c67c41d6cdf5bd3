"""The fast way to weighted sums against the general one, to the bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.adapters.adapter import Adapter
from optimizer.errors import RecipeError
from optimizer.merging import Merger, Recipe, merge
from tests.merging.samples import PATHS, make_adapter

SOURCES = [make_adapter(1, 4, 2.0), make_adapter(2, 2, 1.0, paths=PATHS[1:]), make_adapter(3, 4, 4.0, paths=PATHS[:3])]
KEPT = Merger(SOURCES)
weights = st.sampled_from([-1.3, -0.25, 0.0, 0.1, 0.7, 1.0])
blocks = st.dictionaries(st.sampled_from(["IN", "IN04", "MID", "OUT", "TE"]), st.sampled_from([0.0, 0.5, -1.0, 1.7]), max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(["linear", "concat", "add_difference"]),
    weights=st.tuples(weights, weights, weights).filter(any),
    blocks=st.tuples(blocks, blocks, blocks),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_kept_sources_give_the_same_bits(
    method: str, weights: tuple[float, ...], blocks: tuple[dict[str, float], ...], dtype: torch.dtype
) -> None:
    recipe = Recipe(method=method, weights=weights, blocks=blocks)
    try:
        streamed = merge(SOURCES, recipe)
    except RecipeError:
        with pytest.raises(RecipeError, match="nothing is left to merge"):
            KEPT.merge(recipe, dtype=dtype)
        return
    found = KEPT.merge(recipe, dtype=dtype)
    assert list(found.modules) == list(streamed.modules)
    for path, factors in found.modules.items():
        other = streamed.modules[path]
        assert (factors.alpha, factors.shape, factors.rank) == (other.alpha, other.shape, other.rank)
        assert torch.equal(factors.up, other.up.to(dtype))
        assert torch.equal(factors.down, other.down.to(dtype))


@pytest.mark.parametrize("weight", [1e30, 1.0])
def test_what_is_not_finite_is_named_all_the_same(weight: float) -> None:
    broken = make_adapter(5)
    broken.modules[PATHS[2]].down[0, 0] = 1e30 if weight > 1 else torch.nan
    kept = Merger([broken, make_adapter(6)])
    with pytest.raises(RecipeError, match=f"^{PATHS[2]}: the merged change is not finite"):
        kept.merge(Recipe(method="linear", weights=(weight, 1.0)))


def test_sources_without_modules_leave_nothing_to_merge() -> None:
    empty = Adapter("empty", {})
    with pytest.raises(RecipeError, match="nothing is left to merge"):
        Merger([empty, empty]).merge(Recipe(method="linear", weights=(1.0, 1.0)))
