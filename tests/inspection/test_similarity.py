"""Kinship against dense matrices, and on adapters whose kinship is known by construction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.inspection.similarity import Likeness, kinship, kinships, misfit
from tests.merging.samples import PATHS, make_adapter

Q = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def delta(factors: Factors) -> np.ndarray:
    """The dense ΔW, a matrix, in double precision."""
    product: np.ndarray = factors.up.double().numpy() @ factors.down.double().numpy()
    return factors.alpha / factors.rank * product


def basis(matrix: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the columns' span, by SVD."""
    u, s, _ = np.linalg.svd(matrix, full_matrices=False)
    return u[:, s > 1e-6 * s[0]]


def changed(adapter: Adapter, change: Callable[[Factors], Factors]) -> Adapter:
    """The adapter with every module changed."""
    return replace(adapter, modules={path: change(f) for path, f in adapter.modules.items()})


def one(up: torch.Tensor, down: torch.Tensor, name: str = "one") -> Adapter:
    return Adapter(name, {Q: Factors(up, down, float(up.shape[1]), (up.shape[0], down.shape[1]))})


def dense_likeness(a: Adapter, b: Adapter, paths: tuple[str, ...]) -> dict[str, float]:
    """The numbers of ``Likeness`` from dense matrices."""
    pairs = [(delta(a.modules[p]), delta(b.modules[p])) for p in paths]
    first, second = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    found = {"cosine": first @ second / np.linalg.norm(first) / np.linalg.norm(second), "conflict": float((first * second < 0).mean())}
    for name, sides in (("columns", pairs), ("rows", [(x.T, y.T) for x, y in pairs])):
        bases = [(basis(x), basis(y)) for x, y in sides]
        least = sum(min(x.shape[1], y.shape[1]) for x, y in bases)
        found[name] = sum(np.linalg.norm(x.T @ y) ** 2 for x, y in bases) / least
        found[f"{name} by chance"] = sum(x.shape[1] * y.shape[1] / len(x) for x, y in bases) / least
    return found


def assert_like(found: Likeness, wanted: dict[str, float]) -> None:
    assert found.cosine == pytest.approx(wanted["cosine"], abs=1e-9)
    assert found.conflict == pytest.approx(wanted["conflict"], abs=1e-12)
    for name in ("columns", "rows"):
        assert getattr(found, name).share == pytest.approx(wanted[name], abs=1e-9)
        assert getattr(found, name).chance == pytest.approx(wanted[f"{name} by chance"])


@pytest.mark.parametrize("ranks", [(3, 5), (2, 2), (9, 4), (15, 30)])
def test_every_number_equals_the_dense_one(ranks: tuple[int, int]) -> None:
    """The modules are no larger than the sample, so the share of sign conflicts is exact; ranks beyond the shorter side are included."""
    a, b = make_adapter(1, ranks[0], 2.0), make_adapter(2, ranks[1], -5.0)
    paths = tuple(p for p in PATHS if len(a.modules[p].down.T) <= 64)
    assert len(paths) == 5
    found = kinship(a, b)
    assert_like(found.total, dense_likeness(a, b, paths))
    assert list(found.blocks) == ["TE", "IN02", "IN04", "MID", "OUT05"]
    for name, path in zip(found.blocks, (PATHS[0], PATHS[2], PATHS[1], PATHS[3], PATHS[4]), strict=True):
        assert_like(found.blocks[name], dense_likeness(a, b, (path,)))
    norms = [np.sqrt(sum((delta(f) ** 2).sum() for f in adapter.modules.values())) for adapter in (a, b)]
    assert found.total.norms == pytest.approx(norms)
    assert found.ratio == pytest.approx(norms[0] / norms[1])
    assert found.equal_weights is not None
    assert sum(found.equal_weights) == pytest.approx(1)
    assert found.equal_weights[0] * norms[0] == pytest.approx(found.equal_weights[1] * norms[1])


def test_sign_conflicts_of_large_modules_are_estimated() -> None:
    """Entries of one row or column are not independent; over many seeds the mean is right and no estimate is far off."""
    generator = torch.Generator().manual_seed(0)
    a = one(torch.randn(400, 4, generator=generator), torch.randn(4, 300, generator=generator))
    up, down = a.modules[Q].up, a.modules[Q].down
    b = one(up + 0.8 * torch.randn(400, 4, generator=generator), down + 0.8 * torch.randn(4, 300, generator=generator))
    dense = float((delta(a.modules[Q]) * delta(b.modules[Q]) < 0).mean())
    estimates = [kinship(a, b, seed=seed).total.conflict for seed in range(40)]
    assert 0.1 < dense < 0.4
    assert np.mean(estimates) == pytest.approx(dense, abs=0.012)
    assert max(abs(estimate - dense) for estimate in estimates) < 0.08
    assert len(set(estimates)) > 30
    assert kinship(a, b, seed=3) == kinship(a, b, seed=3)


def test_a_large_module_counts_by_its_entries() -> None:
    """Not by its sample: here the large module agrees everywhere and the small one nowhere."""
    large, small = torch.ones(100, 1), torch.ones(10, 1)
    k = Q.replace("to_q", "to_k")
    both = [
        Adapter("x", {Q: Factors(large, large.T, 1.0, (100, 100)), k: Factors(small, sign * small.T, 1.0, (10, 10))}) for sign in (1, -1)
    ]
    assert kinship(*both).total.conflict == pytest.approx(100 / 10100)


def test_identical_and_negated_adapters() -> None:
    a = make_adapter(3)
    same, negated = kinship(a, a), kinship(a, changed(a, lambda f: replace(f, alpha=-2 * f.alpha)))
    for found, cosine, conflict, ratio in ((same, 1, 0, 1), (negated, -1, 1, 0.5)):
        for likeness in (found.total, *found.blocks.values()):
            assert likeness.cosine == pytest.approx(cosine)
            assert likeness.conflict == conflict
            assert (likeness.columns.share, likeness.rows.share) == pytest.approx((1, 1))
        assert found.ratio == pytest.approx(ratio)
        assert found.reach == (1, 1)
    assert same.same_file
    assert same.total.cosine <= 1


def test_orthogonal_by_construction() -> None:
    """Different rows of the output, the same rows of the input."""
    eye, down = torch.eye(20), torch.randn(3, 14, generator=torch.Generator().manual_seed(0))
    found = kinship(one(eye[:, :3], down), one(eye[:, 3:6], down)).total
    assert (found.cosine, found.conflict, found.columns.share) == (0, 0, 0)
    assert found.rows.share == pytest.approx(1)
    assert (found.columns.chance, found.rows.chance) == pytest.approx((3 / 20, 3 / 14))


def test_one_space_inside_the_other_and_dependent_columns() -> None:
    """A repeated or empty column adds no direction."""
    eye = torch.eye(10)
    wide = one(eye[:, :4], eye[:4])
    narrow = one(
        torch.cat([eye[:, :2], eye[:, :1], torch.zeros(10, 1)], dim=1), torch.randn(4, 10, generator=torch.Generator().manual_seed(1))
    )
    columns = kinship(wide, narrow).total.columns
    assert columns.share == pytest.approx(1)
    assert columns.chance == pytest.approx(4 * 2 / 10 / 2)


def test_rounding_adds_no_direction() -> None:
    """A column that repeats others but for the rounding of fp32 spans nothing new."""
    generator = torch.Generator().manual_seed(3)
    up, down = torch.randn(40, 3, generator=generator), torch.randn(4, 30, generator=generator)
    repeated = one(torch.cat([up, (up @ torch.tensor([[0.3], [0.5], [-0.7]]))], dim=1), down)
    columns = kinship(repeated, one(torch.randn(40, 2, generator=generator), down[:2])).total.columns
    assert columns.chance == pytest.approx(3 * 2 / 40 / 2)


def test_random_subspaces_overlap_as_chance_says() -> None:
    generator = torch.Generator().manual_seed(2)
    draws = [one(torch.randn(60, 6, generator=generator), torch.randn(6, 48, generator=generator)) for _ in range(12)]
    found = [k.total for k in kinships(draws)]
    assert np.mean([f.columns.share for f in found]) == pytest.approx(6 / 60, rel=0.1)
    assert np.mean([f.rows.share for f in found]) == pytest.approx(6 / 48, rel=0.1)
    assert {round(f.columns.chance, 9) for f in found} == {0.1}


def test_what_fits_and_what_does_not() -> None:
    a, b = make_adapter(4, paths=PATHS[:4]), make_adapter(5, paths=PATHS[1:])
    clash = Factors(torch.ones(16, 1), torch.ones(1, 40), 1.0, (16, 40))
    b = replace(b, modules={**b.modules, PATHS[1]: clash}, base="sdxl")
    found = kinship(a, b)
    assert (found.names, found.bases) == (("lora4", "lora5"), ("unknown", "sdxl"))
    assert found.shared == tuple(sorted(PATHS[2:4]))
    assert found.only == ((PATHS[0],), (PATHS[4],))
    assert found.clashes == {PATHS[1]: ((16, 16), (16, 40))}
    for index, adapter in enumerate((a, b)):
        energy = {path: (delta(f) ** 2).sum() for path, f in adapter.modules.items()}
        assert found.reach[index] == pytest.approx(sum(energy[p] for p in found.shared) / sum(energy.values()))
    assert found.total.modules == 2
    assert set(found.blocks) == {"IN02", "MID"}


def test_a_matrix_stands_for_a_1_x_1_convolution() -> None:
    a = make_adapter(6, paths=PATHS[3:4])
    linear = changed(a, lambda f: replace(f, shape=f.shape[:2]))
    found = kinship(a, linear)
    assert found.clashes == {}
    assert found.total.cosine == pytest.approx(1)
    assert misfit(a, linear) == ""


def test_nothing_shared_and_nothing_changed() -> None:
    a, b = make_adapter(7, paths=PATHS[:1]), make_adapter(8, paths=PATHS[1:2])
    found = kinship(a, b)
    assert (found.shared, found.blocks, found.ratio, found.equal_weights) == ((), {}, None, None)
    assert found.reach == (0, 0)
    assert (found.total.modules, found.total.cosine, found.total.conflict, found.total.columns.share) == (0, 0, 0, 0)
    idle = changed(a, lambda f: replace(f, up=torch.zeros_like(f.up)))
    still = kinship(a, idle)
    assert (still.total.cosine, still.total.conflict, still.ratio, still.total.columns.share) == (0, 0, None, 0)
    assert still.reach == (1, 1)


def test_many_at_once_are_the_same_as_two_by_two() -> None:
    adapters = [make_adapter(9, 2), make_adapter(10, 4, paths=PATHS[:3]), make_adapter(11, 3, paths=PATHS[2:])]
    assert kinships(adapters) == tuple(kinship(a, b) for a, b in combinations(adapters, 2))
    assert kinships(adapters[:1]) == ()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), rank=st.integers(1, 6))
def test_other_factors_of_the_same_change_are_the_same_kin(seed: int, rank: int) -> None:
    a, b = make_adapter(seed, rank), make_adapter(seed + 1, 3)
    generator = torch.Generator().manual_seed(seed)
    mix = torch.linalg.qr(torch.randn(rank, rank, generator=generator, dtype=torch.float64))[0]
    mix = mix @ torch.diag(torch.linspace(0.5, 2, rank, dtype=torch.float64))
    turned = changed(a, lambda f: replace(f, up=f.up.double() @ mix, down=torch.linalg.solve(mix, f.down.double())))
    plain, other = kinship(a, b).total, kinship(turned, b).total
    assert other.cosine == pytest.approx(plain.cosine, abs=1e-9)
    assert other.norms == pytest.approx(plain.norms)
    assert other.conflict == pytest.approx(plain.conflict)
    assert (other.columns.share, other.rows.share) == pytest.approx((plain.columns.share, plain.rows.share))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_order_of_the_two_does_not_matter(seed: int) -> None:
    a, b = make_adapter(seed, 4), make_adapter(seed + 1, 2)
    there, back = kinship(a, b), kinship(b, a)
    assert back.total.cosine == pytest.approx(there.total.cosine)
    assert back.total.conflict == there.total.conflict
    assert back.total.columns.share == pytest.approx(there.total.columns.share)
    assert back.reach == there.reach[::-1]
    assert back.total.norms == there.total.norms[::-1]


@pytest.mark.parametrize(
    ("base", "paths", "expected"),
    [
        ("sdxl", PATHS, "for sdxl"),
        ("sd1", PATHS, ""),
        ("unknown", PATHS[:1], ""),
        ("sd1", PATHS[4:], "with no shared module"),
    ],
)
def test_misfits(base: str, paths: tuple[str, ...], expected: str) -> None:
    assert misfit(make_adapter(12, base="sd1", paths=PATHS[:4]), make_adapter(13, base=base, paths=paths)) == expected


def test_a_misfit_in_every_shape_and_a_fit_in_one() -> None:
    a = make_adapter(14, paths=PATHS[:2])
    clash = changed(a, lambda f: replace(f, shape=(3, 3)))
    assert misfit(a, clash) == "with other shapes"
    assert misfit(a, replace(clash, modules={**clash.modules, PATHS[0]: a.modules[PATHS[0]]})) == ""
