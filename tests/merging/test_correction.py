"""The correction: the same factors on every machine, beside the sources and under their checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.adapters import Adapter
from optimizer.errors import RecipeError
from optimizer.merging import (
    Merger,
    Recipe,
    Router,
    correctable,
    correction_of,
    digest,
    load_router,
    merge,
    merge_report,
    save_router,
    with_correction,
)
from tests.merging.samples import assert_same_change, make_adapter, random_router, relative_error

TEXT = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
KEYS = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
SELF = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k"
TWIN = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_v"
SHAPES: dict[str, tuple[int, ...]] = {TEXT: (20, 12), KEYS: (16, 10), SELF: (16, 16), TWIN: (16, 10), "unet.conv_in": (8, 4, 3, 3)}
ONES = (1.0, 1.0)

few = settings(max_examples=10, deadline=None, derandomize=True)


def pair(seed: int = 1) -> list[Adapter]:
    """Two sources, of which the first changes no text encoder."""
    return [
        make_adapter(seed, 3, 2.0, paths=list(SHAPES)[1:], shapes=SHAPES),
        make_adapter(seed + 1, 2, 5.0, paths=[*SHAPES], shapes=SHAPES),
    ]


def distilled(router: Router, weights: Sequence[float] = ONES, **fields: object) -> Recipe:
    return Recipe(method="distill", weights=weights, calibration=router.hash, **fields)


def corrected(seed: int = 1, rank: int = 4) -> tuple[list[Adapter], Router]:
    """Two sources, and a router of theirs with a correction whose entries are all different from 0."""
    sources = pair(seed)
    return sources, random_router(with_correction(sources, rank), seed)


def test_the_factors_are_the_same_on_every_machine() -> None:
    found = correction_of(pair(), 4)
    assert digest(found) == "c453efd35d445c07740d57e8676bb3d16d4837987f04703c207062259f9c57c7"
    assert digest(correction_of(pair(7)[::-1], 4)) == digest(found)
    assert digest(correction_of(pair(), 5)) != digest(found)


def test_every_entry_is_a_sign_and_every_direction_has_length_one() -> None:
    for path, factors in correction_of(pair(), 4).modules.items():
        out, into = SHAPES[path]
        assert torch.equal(factors.up.abs(), torch.full((out, 4), out**-0.5))
        assert torch.equal(factors.down.abs(), torch.full((4, into), into**-0.5))
        assert 0.2 < float((factors.up > 0).float().mean()) < 0.8
        assert (factors.scale, factors.shape) == (1.0, (out, into))


def test_the_rank_is_bounded_by_the_weight() -> None:
    assert {path: factors.rank for path, factors in correction_of(pair(), 64).modules.items()} == {TEXT: 12, KEYS: 10}


def test_only_modules_that_read_text_and_that_a_source_changes_have_it() -> None:
    assert set(correction_of(pair(), 4).modules) == {TEXT, KEYS}
    assert set(correction_of(pair()[:1], 4).modules) == {KEYS}
    joint = {f"transformer.transformer_blocks.0.{leaf}": (8, 8) for leaf in ("attn.add_k_proj", "attn.to_k", "attn2.to_k")}
    for base in ("sd3", "unknown"):  # the second attention of SD 3.5 reads the picture
        (path,) = correction_of([make_adapter(1, paths=[*joint], base=base, shapes=joint)], 4).modules
        assert path.endswith("add_k_proj")
    assert not correction_of([make_adapter(1, paths=[SELF], shapes=SHAPES)], 4).modules


def test_no_correction_is_the_sources_alone() -> None:
    sources = pair()
    assert with_correction(sources, 0) == tuple(sources)
    router = random_router(sources)
    plain = merge(sources, Recipe(method="routed", weights=ONES, calibration=router.hash), routers=[router])
    assert_same_change(merge(sources, distilled(router), routers=[router]), plain, tolerance=0)


@few
@given(seed=st.integers(0, 1000), rank=st.integers(1, 20), weights=st.sampled_from([ONES, (0.7, -0.3), (1.0, 0.0)]))
def test_a_router_that_does_not_use_the_correction_merges_as_without(seed: int, rank: int, weights: tuple[float, float]) -> None:
    sources = pair(seed)
    plain, wide = random_router(sources, seed), Router.identity(with_correction(sources, rank))
    matrices = {path: torch.zeros(sum(ranks), sum(ranks)) for path, ranks in wide.ranks.items()}
    for path, matrix in plain.matrices.items():
        matrices[path][: len(matrix), : len(matrix)] = matrix
    wide = replace(wide, matrices=matrices)
    found = merge(sources, distilled(wide, weights, correction=rank), routers=[wide])
    assert_same_change(found, merge(sources, distilled(plain, weights), routers=[plain]), tolerance=1e-5)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(("weights", "blocks"), [(ONES, ()), ((0.5, -1.0), ({"IN": 0.5}, {"TE": 2.0})), ((0.0, 1.0), ())])
def test_a_corrected_merge_is_the_dense_product_with_weight_one_on_the_correction(
    keep: bool, weights: tuple[float, ...], blocks: tuple[dict[str, float], ...]
) -> None:
    sources, router = corrected()
    recipe = distilled(router, weights, correction=4, blocks=blocks)
    merged = Merger(sources, routers=[router], keep=keep).merge(recipe)
    scaled = router.scaled((*weights, 1.0), (*blocks, {}) if blocks else ())
    parts = with_correction(sources, 4)
    for path in SHAPES:
        own = [adapter.modules[path] for adapter in parts if path in adapter.modules]
        up, down = torch.cat([f.up for f in own], 1).double(), torch.cat([f.scale * f.down for f in own]).double()
        wanted = up @ scaled.matrices[path].double() @ down
        assert relative_error(merged.modules[path].delta().flatten(1), wanted) < 1e-5, path
    assert merge_report(sources, recipe, merged, routers=[router]).total.error < 1e-5


@pytest.mark.parametrize("keep", [True, False])
def test_a_correction_of_a_text_encoder_that_no_source_changes_is_merged_and_replayed(keep: bool, tmp_path: Path) -> None:
    sources = [replace(one, modules={path: one.modules[path] for path in (KEYS, SELF)}) for one in pair()]
    wide = with_correction(sources, 4, {TEXT: (20, 12)})
    router = load_router(save_router(replace(random_router(wide), texts={TEXT: (20, 12)}), tmp_path))
    assert (router.ranks[TEXT], router.texts) == ((0, 0, 4), {TEXT: (20, 12)})
    merger = Merger(sources, routers=[router], keep=keep)
    recipe = distilled(router, (0.5, 0.0), correction=4)
    factors = wide[2].modules[TEXT]
    wanted = factors.up.double() @ router.matrices[TEXT].double() @ factors.down.double()
    merged = merger.merge(recipe)
    assert relative_error(merged.modules[TEXT].delta(), wanted) < 1e-5
    assert merge_report(sources, recipe, merged, routers=[router]).total.error < 1e-5
    assert TEXT not in merger.merge(recipe.replaced(blocks=({"TE": 0.0}, {}))).modules
    other = replace(router, texts={})
    with pytest.raises(RecipeError, match=r"^recipe: calibration: the router was made for the sources "):
        Merger(sources, routers=[other]).merge(distilled(other, correction=4))


def test_only_linear_modules_of_clip_text_encoders_are_corrected_beyond_the_sources() -> None:
    t5 = "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q"
    clip = {TEXT: (20, 12), KEYS: (16, 10), "unet.conv_in": (8, 4, 3, 3), "text_encoder_2.text_projection": (8, 8)}
    assert correctable(clip) == {TEXT: (20, 12)}
    assert correctable(clip | {t5: (8, 8)}) == {}


def test_a_module_whose_sources_all_have_weight_0_is_left_out() -> None:
    sources, router = corrected()
    merged = merge(sources, distilled(router, (1.0, 0.0), correction=4), routers=[router])
    assert TEXT not in merged.modules
    assert KEYS in merged.modules
    with pytest.raises(RecipeError, match="nothing is left to merge"):
        merge(sources, distilled(router, (0.0, 0.0), correction=4), routers=[router])


def test_a_diagonal_router_takes_the_fast_way_to_the_same_sum() -> None:
    sources = pair()
    wide = with_correction(sources, 4)
    router = Router.diagonal(wide, (0.5, 1.0, 0.25))
    recipe = distilled(router, (0.8, 1.2), correction=4, blocks=({"IN": 0.5}, {}))
    merger = Merger(sources, routers=[router])
    plain = merge(wide, Recipe(method="linear", weights=(0.4, 1.2, 0.25), blocks=({"IN": 0.5}, {}, {})))
    assert_same_change(merger.merge(recipe), plain, tolerance=1e-6)
    assert_same_change(merge(sources, recipe, routers=[router]), plain, tolerance=1e-6)


def test_a_rank_bounds_a_corrected_merge() -> None:
    sources, router = corrected()
    whole, cut = (merge(sources, distilled(router, correction=4, rank=rank), routers=[router]) for rank in (None, 2))
    assert {path: factors.rank for path, factors in whole.modules.items()} == {path: sum(ranks) for path, ranks in router.ranks.items()}
    assert {factors.rank for factors in cut.modules.values()} == {2}


def test_a_router_with_another_correction_is_refused() -> None:
    sources, router = corrected()
    plain = random_router(sources)
    for found, rank in ((router, 5), (router, 0), (plain, 4)):
        for merger in (Merger(sources, routers=[router, plain]), Merger(sources, routers=[router, plain], keep=False)):
            with pytest.raises(RecipeError, match=r"^recipe: calibration: the router was made for the sources .* these are "):
                merger.merge(distilled(found, correction=rank))
    merger = Merger(sources, routers=[router])
    merger.merge(distilled(router, correction=4))
    with pytest.raises(RecipeError, match=r"^recipe: calibration: the router was made for the sources "):
        merger.merge(distilled(router, correction=0))


def test_recipes_of_earlier_versions_have_none_and_are_written_as_they_were() -> None:
    old = Recipe.from_data({"method": "distill", "weights": ONES, "train_steps": 150, "checkpoint": 100, "truncation": "outputs"})
    assert old.correction == 0
    assert "correction" not in old.data()
    assert old.hash == "4fd51db6d3e644f446a47147c7696d00bcdfd6792ca67397bb3922fdeaf466fe"
    assert old.replaced(correction=16).data()["correction"] == 16
    assert Recipe.from_yaml(old.replaced(correction=16).to_yaml()).correction == 16


def test_only_a_method_that_trains_whole_routers_has_one() -> None:
    with pytest.raises(RecipeError, match=r"^recipe: correction: the method 'zip' does not read correction \(got 4\)"):
        Recipe(method="zip", weights=ONES, correction=4)
