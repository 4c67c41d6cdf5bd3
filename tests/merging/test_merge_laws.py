"""Laws that every merge method keeps, checked on every method in the table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.merging import METHODS, merge, shared_modules
from tests.merging.samples import LOSSY, NEUTRAL, PATHS, UNCALIBRATED, assert_same_change, make_adapter, recipe, relative_error

seeds = st.integers(0, 10_000)
ranks = st.integers(1, 5)
alphas = st.floats(0.25, 16).map(lambda x: round(x, 3))
weights = st.floats(0.1, 2).flatmap(lambda x: st.sampled_from([round(x, 2), -round(x, 2)]))
every_method = pytest.mark.parametrize("method", list(UNCALIBRATED))
every_setting = pytest.mark.parametrize("setting", LOSSY, ids=lambda s: "-".join(str(v) for v in s.values()))
HOMOGENEOUS = [m.name for m in UNCALIBRATED.values() if m.homogeneous]
few = settings(max_examples=12, deadline=None)


def test_the_tables_of_these_tests_cover_every_method() -> None:
    assert set(NEUTRAL) == set(UNCALIBRATED) == {s["method"] for s in LOSSY}


@every_method
@few
@given(seed=seeds, rank=ranks, alpha=alphas)
def test_one_source_at_weight_one_is_itself(method: str, seed: int, rank: int, alpha: float) -> None:
    source = make_adapter(seed, rank, alpha)
    assert_same_change(merge([source], recipe({"method": method, **NEUTRAL[method]}, 1.0)), source)


@pytest.mark.parametrize("method", HOMOGENEOUS)
@few
@given(seed=seeds, rank=ranks, alpha=alphas)
def test_half_the_weight_is_half_the_change(method: str, seed: int, rank: int, alpha: float) -> None:
    source = make_adapter(seed, rank, alpha)
    assert_same_change(merge([source], recipe({"method": method, **NEUTRAL[method]}, 0.5)), source, factor=0.5)


@every_method
@few
@given(seed=seeds, rank=ranks, alpha=alphas)
def test_weight_minus_one_is_the_opposite(method: str, seed: int, rank: int, alpha: float) -> None:
    source = make_adapter(seed, rank, alpha)
    assert_same_change(merge([source], recipe({"method": method, **NEUTRAL[method]}, -1.0)), source, factor=-1.0)


@every_setting
@few
@given(seed=seeds, factor=st.sampled_from([0.25, 0.5, 2.0]))
def test_a_factor_on_all_weights_is_one_on_the_merge_or_none_at_all(setting: dict[str, object], seed: int, factor: float) -> None:
    sources = [make_adapter(seed, 2), make_adapter(seed + 1, 4, 1.0)]
    whole, part = (merge(sources, recipe(setting, 0.8 * f, 0.5 * f)) for f in (1.0, factor))
    homogeneous = METHODS[str(setting["method"])].homogeneous and setting.get("normalise") != "weight"
    assert_same_change(part, whole, factor=factor if homogeneous else 1.0, tolerance=2e-5)


@every_setting
@few
@given(seed=seeds, rank=ranks, alpha=alphas)
def test_a_source_of_weight_zero_takes_no_part(setting: dict[str, object], seed: int, rank: int, alpha: float) -> None:
    first, second = make_adapter(seed, rank, alpha), make_adapter(seed + 1, 4)
    alone = merge([first], recipe(setting, 1.0))
    assert_same_change(merge([first, second], recipe(setting, 1.0, 0.0)), alone, tolerance=0)
    assert_same_change(merge([second, first], recipe(setting, 0.0, 1.0)), alone, tolerance=0)


@every_setting
@few
@given(seed=seeds, w=weights, v=weights)
def test_opposite_weights_give_the_opposite_merge(setting: dict[str, object], seed: int, w: float, v: float) -> None:
    sources = [make_adapter(seed, 2), make_adapter(seed + 1, 4, 1.0)]
    assert_same_change(merge(sources, recipe(setting, -w, -v)), merge(sources, recipe(setting, w, v)), factor=-1.0, tolerance=2e-5)


@pytest.mark.parametrize("method", [m.name for m in UNCALIBRATED.values() if m.linear])
@few
@given(seed=seeds, w=st.tuples(weights, weights), v=st.tuples(weights, weights))
def test_linear_methods_are_linear_in_the_weights(method: str, seed: int, w: tuple[float, float], v: tuple[float, float]) -> None:
    sources = [make_adapter(seed, 2), make_adapter(seed + 1, 4, 1.0)]
    setting = {"method": method, **NEUTRAL[method], **({"density": 0.5} if METHODS[method].reads("density") else {})}
    parts = [merge(sources, recipe(setting, *x)) for x in (w, v)]
    both = [a + b for a, b in zip(w, v, strict=True)]
    assume(any(both))
    whole = merge(sources, recipe(setting, *both))
    for path in PATHS:
        one, two = (part.modules[path].delta().double() for part in parts)
        scale = float(one.norm() + two.norm())
        assert float((whole.modules[path].delta().double() - one - two).norm()) <= 3e-6 * scale


@pytest.mark.parametrize("method", [m.name for m in UNCALIBRATED.values() if m.commutes])
@few
@given(seed=seeds, order=st.permutations([0, 1, 2]))
def test_the_order_of_the_sources_does_not_matter(method: str, seed: int, order: list[int]) -> None:
    order = order if METHODS[method].most == 0 else [i for i in order if i < METHODS[method].most]
    sources = [make_adapter(seed + i, rank=2**i, alpha=2.0**i, whole_numbers=True) for i in range(len(order))]
    values = (0.5, 1.0, -0.25)[: len(order)]
    setting = {"method": method, **NEUTRAL[method], **({"density": 0.5} if METHODS[method].reads("density") else {})}
    straight = merge(sources, recipe(setting, *values, seed=seed))
    turned = merge([sources[i] for i in order], recipe(setting, *(values[i] for i in order), seed=seed))
    assert_same_change(turned, straight, tolerance=2e-5)


def rebased(adapter: Adapter, seed: int) -> Adapter:
    """An equal adapter in other factors: (up·R, R⁻¹·down), with an integer R of determinant 1, so that ΔW is the same to the bit."""
    modules = {}
    for path, f in adapter.modules.items():
        shear = torch.triu(torch.randint(-2, 3, (f.rank, f.rank), generator=torch.Generator().manual_seed(seed)).float(), 1)
        turn = torch.eye(f.rank) + shear
        modules[path] = Factors(f.up @ turn, torch.linalg.inv(turn).round() @ f.down, f.alpha, f.shape)
    return replace(adapter, modules=modules)


@every_setting
@few
@given(seed=seeds, rank=ranks)
def test_only_the_product_of_the_factors_matters(setting: dict[str, object], seed: int, rank: int) -> None:
    first, second = (make_adapter(seed + i, rank, float(rank), whole_numbers=True) for i in (0, 1))
    other = rebased(first, seed)
    assert_same_change(other, first, tolerance=0)
    if setting.get("rank") not in (None, "full"):  # the best approximation is unique only where the spectrum has a gap: take all of it
        setting = {**setting, "rank": 64}
    found, wanted = (merge([source, second], recipe(setting, 1.0, 0.5)) for source in (other, first))
    assert_same_change(found, wanted, tolerance=2e-5)


@every_method
@few
@given(seed=seeds)
def test_a_missing_module_counts_as_zero(method: str, seed: int) -> None:
    first, second = make_adapter(seed, paths=PATHS[:3]), make_adapter(seed + 1, paths=PATHS[2:], rank=2)
    setting = {"method": method, **NEUTRAL[method]}
    merged = merge([first, second], recipe(setting, 1.0, -0.5))
    assert set(merged.modules) == set(PATHS)
    total = 1.0 if METHODS[method].homogeneous else 1.5
    for path in PATHS[:2]:
        assert relative_error(merged.modules[path].delta(), first.modules[path].delta() / total) <= 3e-6
    for path in PATHS[3:]:
        assert relative_error(merged.modules[path].delta(), -0.5 * second.modules[path].delta() / total) <= 3e-6
    assert shared_modules([first, second]) == (PATHS[2],)


@every_setting
def test_a_block_weight_of_zero_removes_exactly_that_block(setting: dict[str, object]) -> None:
    sources = [make_adapter(1), make_adapter(2, 5, 2.0)]
    whole = merge(sources, recipe(setting, 1.0, 0.5))
    without = merge(sources, recipe(setting, 1.0, 0.5, blocks=({"IN04": 0.0}, {})))
    only_second = merge(sources[1:], recipe(setting, 0.5))
    for path in PATHS:
        expected = only_second if path.startswith("unet.down_blocks.1.") else whole
        assert torch.equal(without.modules[path].delta(), expected.modules[path].delta())


@every_setting
def test_a_module_without_any_weight_is_left_out(setting: dict[str, object]) -> None:
    merged = merge([make_adapter(1), make_adapter(2)], recipe(setting, 1.0, 0.5, blocks=({"TE": 0.0}, {"TE": 0.0, "MID": 0.0})))
    assert set(merged.modules) == {p for p in PATHS if not p.startswith("text_encoder")}


@every_setting
def test_the_merge_is_an_adapter_to_be_used_at_strength_one(setting: dict[str, object]) -> None:
    sources = [make_adapter(1, base="sd1"), make_adapter(2, rank=5, alpha=1.0)]
    merged = merge(sources, recipe(setting, 1.0, 0.5))
    assert merged.base == "sd1"
    assert merged.name == "lora1-lora2"
    for path, factors in merged.modules.items():
        assert factors.alpha == factors.rank
        assert factors.shape == sources[0].modules[path].shape
        assert factors.up.dtype == factors.down.dtype == torch.float32
        assert factors.up.is_contiguous()
        assert factors.down.is_contiguous()
        assert setting.get("rank") in (None, "full") or factors.rank <= int(str(setting["rank"]))


@every_setting
def test_a_merge_repeats_itself_and_leaves_the_global_random_state_alone(setting: dict[str, object]) -> None:
    sources = [make_adapter(1), make_adapter(2)]
    torch.manual_seed(3)
    first = merge(sources, recipe(setting, 1.0, 0.5))
    state = torch.random.get_rng_state()
    torch.manual_seed(3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert_same_change(merge(sources, recipe(setting, 1.0, 0.5)), first, tolerance=0)


@every_setting
def test_sources_in_half_precision_are_merged_in_full_precision(setting: dict[str, object]) -> None:
    def cast(adapter: Adapter, dtype: torch.dtype) -> Adapter:
        modules = {p: replace(f, up=f.up.to(dtype), down=f.down.to(dtype)) for p, f in adapter.modules.items()}
        return replace(adapter, modules=modules)

    half = [cast(make_adapter(seed), torch.float16) for seed in (1, 2)]
    full = [cast(adapter, torch.float32) for adapter in half]
    assert_same_change(merge(half, recipe(setting, 1.0, 0.5)), merge(full, recipe(setting, 1.0, 0.5)), tolerance=0)


@every_setting
@few
@given(seed=seeds, zeros=st.sampled_from(["up", "down", "both", "alpha"]), place=st.integers(0, 1))
def test_a_module_of_zeros_is_absent(setting: dict[str, object], seed: int, zeros: str, place: int) -> None:
    sources = [make_adapter(seed, 3), make_adapter(seed + 1, 2)]
    where, own = PATHS[1], sources[place].modules
    other = {"up": own[where].up, "down": own[where].down, "alpha": own[where].alpha, "shape": own[where].shape}
    if zeros == "alpha":
        other["alpha"] = 0.0
    else:
        names = ("up", "down") if zeros == "both" else (zeros,)
        other |= {name: torch.zeros_like(getattr(own[where], name)) for name in names}
    without = replace(sources[place], modules={path: factors for path, factors in own.items() if path != where})
    silent = replace(sources[place], modules={**own, where: Factors(**other)})  # type: ignore[arg-type]
    assume(where in without.modules or where in sources[1 - place].modules)
    asked = recipe(setting, 0.8, 0.6)
    absent, zero = (merge([*sources[:place], one, *sources[place + 1 :]], asked) for one in (without, silent))
    assert_same_change(absent, zero)


def test_sources_without_a_module_in_common_keep_what_they_are() -> None:
    whole = make_adapter(3, 3)
    halves = [replace(whole, modules={path: whole.modules[path] for path in paths}) for paths in (PATHS[:2], PATHS[2:])]
    assert not shared_modules(halves)
    for method in UNCALIBRATED:
        if method == "model_soup":
            continue  # it divides by the sum of all weights
        assert_same_change(merge(halves, recipe({"method": method, **NEUTRAL[method]}, 1.0, 1.0)), whole)
