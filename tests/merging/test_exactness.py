"""Methods that are one formula agree with each other, at full rank and through files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optimizer.adapters import Adapter, Dialect, load_adapter, save_adapter
from optimizer.adapters.factors import Factors
from optimizer.errors import RecipeError
from optimizer.merging import METHODS, Recipe, merge
from tests.files import CONVOLUTION, LINEAR, TEXT, Made, diffusers_file, kohya_file, random_parts
from tests.merging.samples import LOSSY, NEUTRAL, PATHS, UNCALIBRATED, assert_same_change, make_adapter, recipe, relative_error

few = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 10_000)
signed = st.sampled_from([-1.3, -0.5, 0.4, 1.0])


@few
@given(seed=seeds, weights=st.lists(signed, min_size=1, max_size=4))
def test_concat_linear_and_svd_at_full_rank_are_one_sum(seed: int, weights: list[float]) -> None:
    sources = [make_adapter(seed + i, 1 + i, 2.0**i) for i in range(len(weights))]
    linear = merge(sources, recipe({"method": "linear"}, *weights))
    assert_same_change(merge(sources, recipe({"method": "concat"}, *weights)), linear, tolerance=0)
    assert_same_change(merge(sources, recipe({"method": "svd", "rank": 64}, *weights)), linear, tolerance=5e-6)


@pytest.mark.parametrize("setting", [s for s in LOSSY if METHODS[str(s["method"])].rank == "optional"], ids=str)
def test_whole_matrices_are_the_same_change(setting: dict[str, object]) -> None:
    sources = [make_adapter(1), make_adapter(2, 5, 2.0)]
    exact = {name: value for name, value in setting.items() if name != "rank"}
    whole, plain = (merge(sources, recipe(exact, 0.8, -0.5, **more)) for more in ({"rank": "full"}, {}))
    assert_same_change(whole, plain, tolerance=2e-6)
    assert all(f.rank == min(f.up.shape[0], f.down.shape[1]) for f in whole.modules.values())


def files(folder: Path) -> list[Made]:
    """Three sources as three writers leave them: other dialects, ranks, alphas and modules."""
    return [
        kohya_file(folder / "a.safetensors", random_parts({**LINEAR, **TEXT, **CONVOLUTION}, rank=4, alpha=2.0, seed=1)),
        diffusers_file(folder / "b.safetensors", random_parts(LINEAR, rank=lambda i: 2 + i, alpha=1.0, seed=2)),
        kohya_file(folder / "c.safetensors", random_parts({**TEXT, **CONVOLUTION}, rank=3, seed=3), alphas=False),
    ]


@pytest.mark.parametrize("dialect", ["kohya", "diffusers", "comfyui"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float16, 2e-3)])
@pytest.mark.parametrize("setting", [{"method": "linear"}, {"method": "concat"}, {"method": "linear", "rank": "full"}], ids=str)
def test_the_written_merge_read_back_is_the_weighted_sum(
    tmp_path: Path, setting: dict[str, object], dialect: Dialect, dtype: torch.dtype, tolerance: float
) -> None:
    made, weights = files(tmp_path), (0.7, -1.2, 0.4)
    merged = merge([replace(load_adapter(m.path), base="sd1") for m in made], recipe(setting, *weights))
    written = load_adapter(save_adapter(merged, tmp_path / "m.safetensors", dialect, dtype))
    wanted: dict[str, Tensor] = {}
    for m, weight in zip(made, weights, strict=True):
        for path, delta in m.deltas.items():
            wanted[path] = wanted.get(path, torch.zeros(())) + weight * delta.double()
    assert set(written.modules) == set(wanted)
    for path, delta in wanted.items():
        assert relative_error(written.modules[path].delta().reshape(delta.shape), delta) <= tolerance, path


@pytest.mark.parametrize("method", UNCALIBRATED)
@pytest.mark.parametrize("factor", ["up", "down"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_is_refused_by_the_module_it_is_in(method: str, factor: str, value: float) -> None:
    """In a stack of three modules of one shape, beside a sound source, in the middle one."""
    names = [f"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.{leaf}" for leaf in ("to_k", "to_q", "to_v")]
    pair = [make_adapter(i, paths=names, shapes=dict.fromkeys(names, (8, 6))) for i in (1, 2)]
    sound = pair[1].modules[names[1]]
    broken = getattr(sound, factor).clone()
    broken[1, 1] = value
    bad = replace(pair[1], modules={**pair[1].modules, names[1]: replace(sound, **{factor: broken})})
    with pytest.raises(RecipeError, match=f"^{names[1]}: .*not finite"):
        merge([pair[0], bad], recipe({"method": method, **NEUTRAL[method]}, 1.0, 0.5))


@pytest.mark.parametrize("method", ["knots", "knots_dare", "core"])
@few
@given(seed=seeds)
def test_the_signs_that_an_svd_leaves_open_decide_no_vote(method: str, seed: int) -> None:
    """Two sources that disagree tie a vote by frequency, and a tie goes to +: of which direction, has to be settled."""
    first, second = (make_adapter(seed + i, 2, paths=PATHS[:2]) for i in range(2))
    turn = torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(seed))).Q
    modules = {p: Factors(f.up @ turn, turn.T @ f.down, f.alpha, f.shape) for p, f in first.modules.items()}
    r = Recipe(method=method, weights=(1.0, 0.5), density=0.9, majority="frequency")
    assert_same_change(merge([replace(first, modules=modules), second], r), merge([first, second], r), tolerance=1e-4)


def halves(adapter: Adapter) -> Adapter:
    """An equal change with twice the alpha and half the factors."""
    modules = {p: Factors(f.up / 2, f.down, 2 * f.alpha, f.shape) for p, f in adapter.modules.items()}
    return replace(adapter, modules=modules)


@pytest.mark.parametrize("setting", LOSSY, ids=str)
def test_where_a_files_strength_stands_does_not_matter(setting: dict[str, object]) -> None:
    sources = [make_adapter(1), make_adapter(2, 5, 2.0)]
    assert_same_change(
        merge([halves(sources[0]), sources[1]], recipe(setting, 0.8, 0.5)), merge(sources, recipe(setting, 0.8, 0.5)), tolerance=0
    )
