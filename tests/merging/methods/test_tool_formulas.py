"""What ``METHODS`` says that other tools compute too: PEFT itself on a small model, and mergekit's formulas as its source has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from peft.utils import merge_utils
from torch import nn

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.merging import METHODS, Recipe, merge
from tests.merging.methods.references import Array, angle, case, keep_probabilities, trim, uniforms, weighted
from tests.merging.samples import PATHS, make_adapter, recipe, relative_error

few = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 10_000)
densities = st.sampled_from([0.1, 0.25, 0.4, 0.7, 0.95])
signed = st.sampled_from([-1.0, -0.3, 0.2, 0.5, 1.0, 1.7])
positive = st.sampled_from([0.2, 0.5, 1.0, 1.7])


def sources(seed: int, count: int = 3) -> list[Adapter]:
    return [make_adapter(seed + i, rank=2 + i, alpha=1.0 + i) for i in range(count)]


def assert_every_module(adapters: list[Adapter], r: Recipe, wanted: dict[str, Array], tolerance: float = 1e-5) -> None:
    merged = merge(adapters, r)
    for path in PATHS:
        assert relative_error(merged.modules[path].delta().flatten(1), torch.from_numpy(np.asarray(wanted[path]))) <= tolerance, path


# PEFT ------------------------------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """Two layers for PEFT to adapt."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(12, 20), nn.Linear(20, 16)


LAYERS = {"a": (20, 12), "b": (16, 20)}


def in_peft(adapters: list[Adapter], weights: tuple[float, ...], combination: str, **options: object) -> dict[str, torch.Tensor]:
    """ΔW of each layer, merged by ``add_weighted_adapter``."""
    names = [f"s{i}" for i in range(len(adapters))]
    model = None
    for name, adapter in zip(names, adapters, strict=True):
        first = adapter.modules["unet.a"]
        config = LoraConfig(r=first.rank, lora_alpha=first.alpha, target_modules=list(LAYERS))
        if model is None:
            model = get_peft_model(Small(), config, adapter_name=name)
        else:
            model.add_adapter(name, config)
        for layer in LAYERS:
            target, factors = getattr(model.base_model.model, layer), adapter.modules[f"unet.{layer}"]
            target.lora_A[name].weight.data, target.lora_B[name].weight.data = factors.down.clone(), factors.up.clone()
    assert model is not None
    model.base_model.add_weighted_adapter(names, list(weights), "merged", combination_type=combination, **options)
    return {f"unet.{layer}": getattr(model.base_model.model, layer).get_delta_weight("merged").detach() for layer in LAYERS}


def for_peft(seed: int, ranks: tuple[int, ...] = (3, 2)) -> list[Adapter]:
    generator, found = torch.Generator().manual_seed(seed), []
    for index, rank in enumerate(ranks):
        shapes = {f"unet.{layer}": shape for layer, shape in LAYERS.items()}
        draw = {p: (torch.randn(s[0], rank, generator=generator), torch.randn(rank, s[1], generator=generator)) for p, s in shapes.items()}
        modules = {p: Factors(up, down, 2.0 + index, shapes[p]) for p, (up, down) in draw.items()}
        found.append(Adapter(f"p{index}", modules, sha256=f"{index:064x}"))
    return found


@pytest.mark.parametrize(
    ("setting", "combination", "options"),
    [
        ({"method": "concat"}, "cat", {}),
        ({"method": "svd", "rank": 3}, "svd", {"svd_rank": 3}),
        ({"method": "ties", "density": 0.4, "rank": 4}, "ties_svd", {"density": 0.4, "svd_rank": 4}),
        (
            {"method": "ties", "density": 0.7, "majority": "frequency", "rank": 4},
            "ties_svd",
            {"density": 0.7, "svd_rank": 4, "majority_sign_method": "frequency"},
        ),
        ({"method": "magnitude_prune", "density": 0.4, "rank": 4}, "magnitude_prune_svd", {"density": 0.4, "svd_rank": 4}),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
@pytest.mark.parametrize("weights", [(0.7, 0.5), (1.0, -0.4)])
def test_pefts_merge_of_a_model_is_ours(
    setting: dict[str, object], combination: str, options: dict[str, object], weights: tuple[float, float]
) -> None:
    adapters = for_peft(1)
    merged = merge(adapters, recipe(setting, *weights))
    for path, wanted in in_peft(adapters, weights, combination, **options).items():
        assert relative_error(merged.modules[path].delta(), wanted) <= 2e-5


def test_pefts_linear_has_cross_terms() -> None:
    adapters = for_peft(2, (3, 3))
    merged = merge(adapters, recipe({"method": "linear"}, 1.0, 1.0))
    for path, theirs in in_peft(adapters, (1.0, 1.0), "linear").items():
        assert relative_error(theirs, merged.modules[path].delta()) > 0.5


@few
@given(seed=seeds, density=densities, weights=st.tuples(signed, signed, signed))
def test_ties_by_frequency_is_pefts(seed: int, density: float, weights: tuple[float, ...]) -> None:
    adapters = sources(seed)
    changes = {p: [a.modules[p].delta().flatten(1) for a in adapters] for p in PATHS}
    wanted = {p: merge_utils.ties(changes[p], torch.tensor(weights), density, "frequency").numpy() for p in PATHS}
    assert_every_module(adapters, recipe({"method": "ties"}, *weights, density=density, majority="frequency"), wanted)


# mergekit --------------------------------------------------------------------------------------------------------------------------


def consensus_of(values: list[Array], weights: tuple[float, ...], normalize: bool, count: bool = False) -> Array:
    """Signs are elected on weighted task vectors; Σ w·x·m, divided by Σ w·m where normalised."""
    w = np.reshape(weights, (-1, 1, 1))
    x = w * np.stack(values)
    votes = (np.sign(x) if count else x).sum(axis=0)
    mask = np.sign(x) == np.where(votes >= 0, 1, -1)
    divisor = (w * mask).sum(axis=0)
    merged: Array = (x * mask).sum(axis=0) / (np.where(divisor == 0, 1, divisor) if normalize else 1)
    return merged


def outliers_masked(x: Array, density: float, gamma: float) -> Array:
    """Sort the entries from the smallest, then cut n_bot at the bottom and n_top at the top; ``[n_bot:-0]`` would be empty."""
    if density >= 1:
        return x
    top, target = int(gamma * x.size), int(density * x.size)
    bottom = x.size - target - top
    if bottom < 0:
        top, bottom = top + bottom, 0
    assert top > 0
    mask = np.zeros(x.size)
    mask[np.argsort(np.abs(x), axis=None, kind="stable")[bottom:-top]] = 1
    return x * mask.reshape(x.shape)


@few
@given(seed=seeds, density=densities, weights=st.tuples(positive, positive, positive), count=st.booleans())
def test_weighted_ties_is_mergekits(seed: int, density: float, weights: tuple[float, ...], count: bool) -> None:
    adapters, shared = sources(seed), {"method": "ties", "density": density, "elect_on": "weighted"}
    shared["majority"] = "frequency" if count else "total"
    for normalise in ("weight", "none"):
        r = recipe(shared, *weights, normalise=normalise)
        values = {p: [trim(d, density) for d in case(adapters, p, r).deltas] for p in PATHS}
        assert_every_module(adapters, r, {p: consensus_of(v, weights, normalise == "weight", count) for p, v in values.items()})


@few
@given(seed=seeds, weights=st.tuples(signed, signed, signed))
def test_without_normalising_mergekits_ties_is_ours_at_negative_weights_too(seed: int, weights: tuple[float, ...]) -> None:
    adapters = sources(seed)
    r = recipe({"method": "ties"}, *weights, density=0.5, elect_on="weighted", normalise="none")
    assert_every_module(adapters, r, {p: consensus_of([trim(d, 0.5) for d in case(adapters, p, r).deltas], weights, False) for p in PATHS})


@few
@given(
    seed=seeds, density=st.sampled_from([0.2, 0.5, 0.9, 1.0]), gamma=st.sampled_from([0.02, 0.1, 0.4]), weights=st.tuples(positive, signed)
)
def test_breadcrumbs_is_mergekits(seed: int, density: float, gamma: float, weights: tuple[float, float]) -> None:
    adapters = sources(seed, 2)
    setting: dict[str, object] = {"density": density, "gamma": gamma}
    linear = recipe({"method": "breadcrumbs", **setting}, *weights)
    elected = recipe({"method": "breadcrumbs_ties", **setting, "elect_on": "weighted", "normalise": "none"}, *weights)
    values = {p: [outliers_masked(d, density, gamma) for d in case(adapters, p, linear).deltas] for p in PATHS}
    assert_every_module(adapters, linear, {p: weighted(v, weights) for p, v in values.items()})
    assert_every_module(adapters, elected, {p: consensus_of(v, weights, False) for p, v in values.items()})


@pytest.mark.parametrize("name", ["breadcrumbs", "breadcrumbs_ties"])
@pytest.mark.parametrize("gamma", [0.0, 0.0001])
def test_breadcrumbs_that_drop_none_of_the_largest_are_magnitude_pruning_not_nothing(name: str, gamma: float) -> None:
    adapters = sources(1, 1)
    merged = merge(adapters, recipe({"method": name}, 1.0, density=0.4, gamma=gamma))
    pruned = merge(adapters, recipe({"method": "magnitude_prune"}, 1.0, density=0.4))
    for path in PATHS:
        assert torch.equal(merged.modules[path].delta(), pruned.modules[path].delta())
        assert float(merged.modules[path].delta().abs().max()) > 0


@few
@given(seed=seeds, epsilon=st.sampled_from([0.05, 0.2, 0.39]), density=st.sampled_from([0.4, 0.5, 0.6]), l1=st.booleans())
def test_della_is_mergekits_on_the_same_random_numbers(seed: int, epsilon: float, density: float, l1: bool) -> None:
    adapters, weights = sources(seed, 2), (0.7, 0.4)
    r = recipe({"method": "della_linear"}, *weights, density=density, epsilon=epsilon, rescale="l1" if l1 else "none", seed=seed)

    def sampled(x: Array, draw: Array) -> Array:
        ranks = np.abs(x).argsort(axis=1, kind="stable").argsort(axis=1) + 1.0
        share = (ranks - ranks.min(axis=1, keepdims=True)) / (ranks.max(axis=1, keepdims=True) - ranks.min(axis=1, keepdims=True))
        kept: Array = x * (draw < (density - epsilon) + share * 2 * epsilon)
        return kept * float(np.abs(x).sum() / np.abs(kept).sum()) if l1 else kept

    wanted = {}
    for path in PATHS:
        draws = [uniforms(seed, a.sha256 or "", path, d.shape) for a, d in zip(adapters, case(adapters, path, r).deltas, strict=True)]
        values = [sampled(d, u) for d, u in zip(case(adapters, path, r).deltas, draws, strict=True)]
        wanted[path] = weighted(values, weights)
    assert_every_module(adapters, r, wanted)


def test_the_keep_probabilities_of_the_reference_are_mergekits() -> None:
    x = np.array([[3.0, -1.0, 2.0, 0.5, -4.0]])
    assert keep_probabilities(x, 0.5, 0.2)[0] == pytest.approx([0.6, 0.4, 0.5, 0.3, 0.7])


def nuslerp_of(t: float, a: Array, b: Array) -> Array:
    """On the last axis; unit vectors only tell the angle, and vectors that are almost parallel are interpolated plainly."""
    units = [v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-7) for v in (a, b)]
    theta = np.arccos(np.clip((units[0] * units[1]).sum(axis=-1, keepdims=True), -1, 1))
    sine = np.sin(theta)
    curved = (np.sin((1 - t) * theta) * a + np.sin(t * theta) * b) / np.where(sine == 0, 1, sine)
    return np.where(np.abs(sine) < 1e-8, (1 - t) * a + t * b, curved)


@few
@given(seed=seeds, t=st.sampled_from([0.01, 0.25, 0.5, 0.9]))
def test_slerp_and_nuslerp_are_mergekits_at_weights_that_add_up_to_one(seed: int, t: float) -> None:
    adapters, weights = sources(seed, 2), (1 - t, t)
    flat, rows = {}, {}
    for path in PATHS:
        a, b = case(adapters, path, recipe({"method": "slerp"}, *weights)).deltas
        flat[path] = nuslerp_of(t, a.reshape(-1), b.reshape(-1)).reshape(a.shape)
        rows[path] = nuslerp_of(t, a, b)
    assert_every_module(adapters, recipe({"method": "slerp"}, *weights), flat)
    assert_every_module(adapters, recipe({"method": "nuslerp"}, *weights), rows)


def karcher_of(deltas: list[Array], steps: int = 10, tolerance: float = 1e-5) -> Array:
    """Equal shares; at most ten steps along the tangent."""
    norms = [float(np.linalg.norm(d)) for d in deltas]
    units = [d / n for d, n in zip(deltas, norms, strict=True)]
    mean = sum(units, start=np.zeros_like(units[0])) / len(units)
    mean = mean / np.linalg.norm(mean)
    for _ in range(steps):
        tangent = np.zeros_like(mean)
        for u in units:
            theta = angle(mean, u)
            if theta >= tolerance:
                tangent += theta / np.sin(theta) * (u - np.cos(theta) * mean) / len(units)
        length = float(np.linalg.norm(tangent))
        if length < tolerance:
            break
        mean = np.cos(length) * mean + np.sin(length) * tangent / length
        mean /= np.linalg.norm(mean)
    merged: Array = sum(norms) / len(norms) * mean
    return merged


@few
@given(seed=seeds, count=st.integers(2, 4))
def test_karcher_is_mergekits_at_equal_weights(seed: int, count: int) -> None:
    adapters = sources(seed, count)
    r = recipe({"method": "karcher"}, *[1 / count] * count)
    assert_every_module(adapters, r, {p: karcher_of(list(case(adapters, p, r).deltas)) for p in PATHS}, 1e-4)


@few
@given(seed=seeds, weights=st.tuples(positive, positive, positive))
def test_model_soup_is_mergekits_linear_and_the_mean_at_equal_weights(seed: int, weights: tuple[float, ...]) -> None:
    adapters = sources(seed)
    r = recipe({"method": "model_soup"}, *weights)
    assert_every_module(adapters, r, {p: weighted(case(adapters, p, r).deltas, weights) / sum(weights) for p in PATHS})
    equal = r.replaced(weights=(0.4, 0.4, 0.4))
    assert_every_module(adapters, equal, {p: np.mean(case(adapters, p, r).deltas, axis=0) for p in PATHS})


@few
@given(seed=seeds, alpha=signed)
def test_add_difference_is_a_plus_alpha_times_b_minus_c(seed: int, alpha: float) -> None:
    adapters = sources(seed)
    r = recipe({"method": "add_difference"}, 1.0, alpha, alpha)
    wanted = {}
    for path in PATHS:
        a, b, c = case(adapters, path, r).deltas
        wanted[path] = a + alpha * (b - c)
    assert_every_module(adapters, r, wanted)


def test_what_a_method_reproduces_names_the_tool() -> None:
    for method in METHODS.values():
        assert all(": " in line or line.startswith("not ") for line in method.reproduces)


def test_two_sources_of_one_sha_draw_one_mask() -> None:
    """The mask belongs to the source, not to its place: the same file twice, halved, is the file itself."""
    source = make_adapter(3)
    twice = merge([source, replace(source, name="again")], recipe({"method": "dare_linear"}, 0.5, 0.5, density=0.5))
    once = merge([source], recipe({"method": "dare_linear"}, 1.0, density=0.5))
    for path in PATHS:
        torch.testing.assert_close(twice.modules[path].delta(), once.modules[path].delta())
