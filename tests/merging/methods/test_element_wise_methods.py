"""TIES, DARE and magnitude pruning against references written from the papers, and against PEFT's functions applied to ΔW."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from peft.utils import merge_utils
from torch import Tensor

from optimizer.adapters.adapter import Adapter
from optimizer.merging import METHODS, Deltas, Recipe, merge
from optimizer.merging.algebra.tiles import Slabs
from optimizer.merging.methods.element_wise.magnitude import trimmed
from tests.merging.samples import PATHS, low_rank, make_adapter, recipe, relative_error

few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 10_000)
densities = st.sampled_from([0.1, 0.25, 0.4, 0.7, 0.95])
signed = st.sampled_from([-1.0, -0.3, 0.2, 0.5, 1.0, 1.7])
triples = st.tuples(signed, signed, signed)
Array = NDArray[np.float64]


def three(seed: int) -> list[Adapter]:
    return [make_adapter(seed + i, rank=2 + i, alpha=1.0 + i) for i in range(3)]


def dense(sources: list[Adapter], path: str) -> list[Tensor]:
    return [source.modules[path].delta().flatten(1) for source in sources]


def trim(x: Array, density: float) -> Array:
    limit = np.sort(np.abs(x), axis=None)[-max(1, int(density * x.size))]
    return np.where(np.abs(x) >= limit, x, 0)


def elect_and_merge(values: list[Array], weights: tuple[float, ...], r: Recipe) -> Array:
    """Entry by entry, in plain Python, as TIES' algorithm 1 reads."""
    merged = np.zeros_like(values[0])
    for at in np.ndindex(merged.shape):
        entries = [(w, float(v[at])) for w, v in zip(weights, values, strict=True)]
        votes = [v if r.elect_on == "raw" else w * v for w, v in entries]
        sign = 1 if sum(votes) >= 0 else -1
        chosen = [(w, v) for (w, v), vote in zip(entries, votes, strict=True) if vote * sign > 0]
        divisor = {"count": len(chosen), "weight": sum(abs(w) for w, _ in chosen), "none": 1}[r.normalise]
        merged[at] = r.scale * sum(w * v for w, v in chosen) / divisor if chosen else 0
    return merged


@pytest.mark.parametrize("elect_on", ["raw", "weighted"])
@pytest.mark.parametrize("normalise", ["count", "weight", "none"])
@settings(max_examples=5, deadline=None)
@given(seed=seeds, density=densities, weights=triples)
def test_ties_follows_the_paper(elect_on: str, normalise: str, seed: int, density: float, weights: tuple[float, ...]) -> None:
    sources = three(seed)
    r = recipe({"method": "ties"}, *weights, density=density, elect_on=elect_on, normalise=normalise, scale=1.5)
    merged = merge(sources, r)
    for path in PATHS:
        wanted = elect_and_merge([trim(d.double().numpy(), density) for d in dense(sources, path)], weights, r)
        assert relative_error(merged.modules[path].delta().flatten(1), torch.from_numpy(wanted)) <= 1e-5


@few
@given(seed=seeds, density=densities, weights=triples)
def test_ties_by_count_on_raw_signs_is_pefts(seed: int, density: float, weights: tuple[float, ...]) -> None:
    sources = three(seed)
    merged = merge(sources, recipe({"method": "ties"}, *weights, density=density))
    for path in PATHS:
        wanted = merge_utils.ties(dense(sources, path), torch.tensor(weights), density)
        assert relative_error(merged.modules[path].delta().flatten(1), wanted) <= 1e-6


@few
@given(seed=seeds, density=densities, weights=triples)
def test_magnitude_prune_is_pefts_and_the_papers(seed: int, density: float, weights: tuple[float, ...]) -> None:
    sources = three(seed)
    merged = merge(sources, recipe({"method": "magnitude_prune"}, *weights, density=density))
    for path in PATHS:
        changes = dense(sources, path)
        found = merged.modules[path].delta().flatten(1)
        assert relative_error(found, merge_utils.magnitude_prune(changes, torch.tensor(weights), density)) <= 1e-6
        plain = sum(w * trim(d.double().numpy(), density) for w, d in zip(weights, changes, strict=True))
        assert relative_error(found, torch.from_numpy(np.asarray(plain))) <= 1e-5


def test_trimming_keeps_at_least_one_entry_and_all_that_equal_the_smallest_kept() -> None:
    values = torch.tensor([[[1.0, -3.0], [2.0, 2.0]]])
    slabs = Slabs(1, (1, 2, 2), values.device, lambda i, rows: values[:, rows].clone())
    kept = {density: trimmed(slabs, density).rows(0, slice(0, 2)).tolist() for density in (0.01, 0.5, 1.0)}
    assert kept[0.01] == [[[0.0, -3.0], [0.0, 0.0]]]
    assert kept[0.5] == [[[0.0, -3.0], [2.0, 2.0]]]
    assert kept[1.0] == values.tolist()


@dataclass(frozen=True)
class Drawn:
    """The masks that a DARE recipe draws in one module, and the entries that they keep, divided by the density."""

    masks: Tensor
    kept: list[Tensor]


def masks_of(sources: list[Adapter], path: str, r: Recipe) -> Tensor:
    """Which entries DARE keeps, (n, out, fan_in), bool, for the factors of the module ``path``."""
    terms = tuple(low_rank(s.modules[path]) for s in sources)
    weights = torch.tensor(r.weights)[:, None]
    deltas = Deltas((path,), terms, weights, tuple(s.sha256 for s in sources), weights)
    _, rows, columns = deltas.dense.shape
    numbers = torch.cat([deltas.uniform(r.seed, i)(slice(0, rows), columns) for i in range(len(sources))])
    return torch.lt(numbers, r.density)


def drawn(sources: list[Adapter], path: str, r: Recipe) -> Drawn:
    masks = masks_of(sources, path, r)
    return Drawn(masks, [d * m / r.density for d, m in zip(dense(sources, path), masks, strict=True)])


@few
@given(seed=seeds, density=densities, weights=triples)
def test_dare_on_the_same_masks_is_pefts(seed: int, density: float, weights: tuple[float, ...]) -> None:
    sources = three(seed)
    linear, elected = (recipe({"method": m}, *weights, density=density, seed=seed) for m in ("dare_linear", "dare_ties"))
    merged_linear, merged_elected = merge(sources, linear), merge(sources, elected)
    for path in PATHS:
        kept = drawn(sources, path, linear).kept
        wanted = merge_utils.task_arithmetic(kept, torch.tensor(weights))
        assert relative_error(merged_linear.modules[path].delta().flatten(1), wanted) <= 1e-6
        stacked = torch.stack(kept)
        majority = merge_utils.calculate_majority_sign_mask(stacked)
        wanted = merge_utils.disjoint_merge(stacked * torch.tensor(weights)[:, None, None], majority)
        assert relative_error(merged_elected.modules[path].delta().flatten(1), wanted) <= 1e-6


@pytest.mark.parametrize("elect_on", ["raw", "weighted"])
@pytest.mark.parametrize("normalise", ["count", "weight", "none"])
def test_dare_ties_elects_among_the_survivors(elect_on: str, normalise: str) -> None:
    sources, weights = three(5), (0.5, 1.0, -0.7)
    r = recipe({"method": "dare_ties"}, *weights, density=0.5, elect_on=elect_on, normalise=normalise, scale=0.8, seed=3)
    merged = merge(sources, r)
    for path in PATHS:
        wanted = elect_and_merge([k.double().numpy() for k in drawn(sources, path, r).kept], weights, r)
        assert relative_error(merged.modules[path].delta().flatten(1), torch.from_numpy(wanted)) <= 1e-5


def test_dare_keeps_the_share_it_is_asked_to_keep_as_peft_does() -> None:
    count, density = 500 * 400, 0.3
    big = [make_adapter(1)]
    r = recipe({"method": "dare_linear"}, 1.0, density=density)
    shares = torch.cat([drawn(big, path, r.replaced(seed=s)).masks.flatten() for path in PATHS for s in range(40)]).float()
    deviation = (density * (1 - density) / len(shares)) ** 0.5
    assert abs(float(shares.mean()) - density) < 5 * deviation
    torch.manual_seed(0)
    theirs = (merge_utils.prune(torch.ones(count), density, "random", rescale=True) != 0).float().mean()
    assert abs(float(theirs) - density) < 5 * (density * (1 - density) / count) ** 0.5


def test_dare_keeps_the_expectation() -> None:
    source, path, trials = make_adapter(1, paths=PATHS[1:2]), PATHS[1], 400
    total = sum(
        merge([source], recipe({"method": "dare_linear"}, 1.0, density=0.5, seed=s)).modules[path].delta().double() for s in range(trials)
    )
    assert isinstance(total, torch.Tensor)
    change = source.modules[path].delta().double()
    z = (total / trials - change) / (change.abs() / trials**0.5)  # at density 1/2 an entry deviates by its own magnitude
    assert float(z.abs().max()) < 5
    assert float(z.square().mean()) == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("rescale", ["inverse", "l1", "none"])
def test_dare_rescales_as_asked(rescale: str) -> None:
    source = make_adapter(1)
    r = recipe({"method": "dare_linear"}, 1.0, density=0.4, rescale=rescale)
    merged = merge([source], r)
    for path in PATHS:
        change, mask = dense([source], path)[0], drawn([source], path, r).masks[0]
        factor = {"inverse": 1 / 0.4, "l1": float(change.abs().sum() / (change * mask).abs().sum()), "none": 1.0}[rescale]
        assert relative_error(merged.modules[path].delta().flatten(1), factor * mask * change) <= 1e-6


def test_a_mask_is_a_function_of_seed_source_and_module_alone() -> None:
    a, b, c = three(1)
    r = recipe({"method": "dare_linear"}, 1.0, 1.0, density=0.5, seed=7)
    path = PATHS[1]
    mask = drawn([a, b], path, r).masks[0]
    assert torch.equal(mask, drawn([b, a], path, r).masks[1])
    assert torch.equal(mask, drawn([c, a], path, r).masks[1])
    assert torch.equal(mask, drawn([a, c], path, r.replaced(weights=(0.2, -3.0))).masks[0])
    others = [drawn([a, b], path, r).masks[1], drawn([a, b], path, r.replaced(seed=8)).masks[0]]
    assert all(not torch.equal(mask, other) for other in others)
    twins = replace(a, modules=dict.fromkeys(("unet.x", "unet.y"), a.modules[path]))
    assert not torch.equal(*(masks_of([twins], p, r.replaced(weights=(1.0,))) for p in twins.modules))


def test_density_bounds_of_the_search_lie_inside_the_recipes() -> None:
    for method in METHODS.values():
        for parameter in method.parameters:
            ends = parameter.choices or ((parameter.low, parameter.start, parameter.high) if parameter.searched else (parameter.start,))
            for value in ends:
                assert getattr(recipe({"method": method.name}, 1.0, **{parameter.name: value}), parameter.name) == value
