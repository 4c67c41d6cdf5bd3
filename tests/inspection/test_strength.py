"""Anatomy against the same numbers from dense matrices and numpy's SVD."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.inspection.strength import anatomy, paths_by_block
from optimizer.merging.algebra.gram import effective_rank, energies, rank_for
from tests.merging.samples import PATHS, SHAPES, make_adapter

ATTENTION = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
BLOCK_OF = {"TE": PATHS[0], "IN04": PATHS[1], "IN02": PATHS[2], "MID": PATHS[3], "OUT05": PATHS[4]}


def singular_values(factors: Factors) -> np.ndarray:
    """The singular values of the dense ΔW, by numpy in double precision."""
    matrix = factors.alpha / factors.rank * (factors.up.double().numpy() @ factors.down.double().numpy())
    return np.linalg.svd(matrix, compute_uv=False)


def one(up: torch.Tensor, down: torch.Tensor, alpha: float | None = None) -> Adapter:
    """An adapter of one attention module; alpha is the rank by default."""
    shape = (up.shape[0], down.shape[1])
    return Adapter("one", {ATTENTION: Factors(up, down, float(up.shape[1] if alpha is None else alpha), shape)})


def diagonal(values: list[float], size: int = 12) -> Adapter:
    """ΔW with these singular values: ``up`` holds them, ``down`` is a piece of the identity."""
    down = torch.eye(size, dtype=torch.float64)[: len(values)]
    return one(down.T * torch.tensor(values, dtype=torch.float64), down)


@pytest.mark.parametrize("rank", [1, 3, 9, 12, 13, 40])
def test_energies_are_the_squared_singular_values(rank: int) -> None:
    """Below, at and above the shorter side, for tall and wide weights, with any sign of alpha."""
    for alpha, adapter in ((2.0, make_adapter(1, rank, 2.0)), (-0.7, make_adapter(2, rank, -0.7))):
        for factors in adapter.modules.values():
            wanted = singular_values(factors)[: min(rank, *singular_values(factors).shape)]
            found = energies(factors)
            assert factors.alpha == alpha
            assert len(found) == min(rank, factors.up.shape[0], factors.down.shape[1])
            np.testing.assert_allclose(found.numpy(), wanted**2, rtol=1e-9, atol=1e-12 * wanted[0] ** 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_factors_of_any_precision(dtype: torch.dtype) -> None:
    whole = make_adapter(3, whole_numbers=True)
    stored = {path: replace(f, up=f.up.to(dtype), down=f.down.to(dtype)) for path, f in whole.modules.items()}
    assert anatomy(replace(whole, modules=stored)) == anatomy(whole)


def test_norms_shares_and_medians_per_block() -> None:
    adapter = make_adapter(4, rank=6, alpha=3.0)
    found = anatomy(adapter)
    energy = {path: float((singular_values(f) ** 2).sum()) for path, f in adapter.modules.items()}
    assert [block.name for block in found.blocks] == ["TE", "IN02", "IN04", "MID", "OUT05"]
    for block in found.blocks:
        assert block.modules == 1
        assert block.norm**2 == pytest.approx(energy[BLOCK_OF[block.name]])
        assert block.share == pytest.approx(energy[BLOCK_OF[block.name]] / sum(energy.values()))
    assert found.total.norm == pytest.approx(sum(energy.values()) ** 0.5)
    assert (found.total.name, found.total.modules) == ("all", 5)
    assert found.total.share == pytest.approx(1)
    assert found.parts == {"text_encoder": 1, "unet": 4}
    assert found.part_shares["text_encoder"] == pytest.approx(energy[PATHS[0]] / sum(energy.values()))
    assert sum(found.part_shares.values()) == pytest.approx(1)


def test_directions_against_their_definitions() -> None:
    adapter = make_adapter(5, rank=7)
    found = anatomy(adapter)
    for block in found.blocks:
        energy = singular_values(adapter.modules[BLOCK_OF[block.name]])[:7] ** 2
        shares = energy / energy.sum()
        assert block.directions.effective == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
        for share, rank in ((0.9, block.directions.for_90), (0.99, block.directions.for_99)):
            assert shares[:rank].sum() >= share - 1e-9
            assert shares[: rank - 1].sum() < share
        assert block.directions.stored == 7


def test_the_median_is_over_modules() -> None:
    """Not over directions or entries: five modules of different ranks, of which the third counts."""
    modules = {path: make_adapter(6, rank).modules[path] for path, rank in zip(PATHS, (1, 2, 4, 7, 12), strict=True)}
    found = anatomy(Adapter("mixed", modules))
    for name in ("stored", "effective", "for_90", "for_99"):
        each = sorted(getattr(block.directions, name) for block in found.blocks)
        assert getattr(found.total.directions, name) == each[2]
        assert each[0] < each[2] < each[4]


def test_hand_built_spectra() -> None:
    flat = anatomy(diagonal([2.0] * 8)).total.directions
    assert flat.effective == pytest.approx(8)
    assert (flat.for_90, flat.for_99) == (8, 8)
    # 90 of 100 parts of the energy lie in the first direction, 9 in the second: each share is met exactly, and rounding asks for no more.
    steps = anatomy(diagonal([90**0.5, 3.0, 1.0])).total.directions
    assert (steps.for_90, steps.for_99) == (1, 2)
    assert anatomy(diagonal([5.0])).total.directions.effective == pytest.approx(1)


def test_energies_of_nothing() -> None:
    nothing = torch.zeros(4, dtype=torch.float64)
    assert (effective_rank(nothing), rank_for(nothing, 0.9)) == (0.0, 0)
    found = anatomy(diagonal([0.0, 0.0]))
    assert (found.idle, found.sufficient_rank, found.total.norm, found.total.share) == (1, 0, 0.0, 0.0)
    assert (found.total.directions.effective, found.total.directions.for_99) == (0.0, 0)


def test_the_sufficient_rank_is_that_of_the_whole_file() -> None:
    """The rank that every module is truncated to, judged by what is lost of all modules together; a weak module hardly counts."""
    strong, weak = diagonal([10.0, 0.5]), diagonal([0.1] * 8)
    both = Adapter("both", {ATTENTION: strong.modules[ATTENTION], ATTENTION.replace("to_q", "to_k"): weak.modules[ATTENTION]})
    energy = np.zeros(12)
    for factors in both.modules.values():
        energy += singular_values(factors) ** 2
    wanted = int(np.argmax(np.cumsum(energy) >= 0.99 * energy.sum())) + 1
    assert anatomy(both).sufficient_rank == wanted == 1
    assert anatomy(weak).sufficient_rank == 8


def test_statistics_of_the_stored_weights() -> None:
    adapter = make_adapter(7)
    found = anatomy(adapter)
    for block in (*found.blocks, found.total):
        group = adapter.modules.values() if block.name == "all" else [adapter.modules[BLOCK_OF[block.name]]]
        entries = torch.cat([t.flatten() for f in group for t in (f.up, f.down)]).double().numpy()
        assert block.values.count == len(entries)
        assert block.values.mean == pytest.approx(entries.mean(), abs=1e-12)
        assert block.values.std == pytest.approx(entries.std())
        assert (block.values.minimum, block.values.maximum) == (entries.min(), entries.max())


def test_ranks_alphas_scales_and_idle_modules_are_counted() -> None:
    adapter = make_adapter(8, rank=4, alpha=2.0)
    other = make_adapter(9, rank=2, alpha=8.0)
    idle = replace(adapter.modules[PATHS[2]], up=torch.zeros_like(adapter.modules[PATHS[2]].up))
    found = anatomy(replace(adapter, modules={**adapter.modules, PATHS[1]: other.modules[PATHS[1]], PATHS[2]: idle}))
    assert list(found.ranks.items()) == [(2, 1), (4, 4)]
    assert list(found.alphas.items()) == [(2.0, 4), (8.0, 1)]
    assert list(found.scales.items()) == [(0.5, 4), (4.0, 1)]
    assert found.idle == 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), rank=st.integers(1, 8), gain=st.floats(0.1, 10))
def test_other_factors_of_the_same_change_have_the_same_anatomy(seed: int, rank: int, gain: float) -> None:
    """(up·R, R⁻¹·down) is the same adapter; only the statistics of the stored weights differ."""
    adapter = make_adapter(seed, rank)
    generator = torch.Generator().manual_seed(seed)
    mix = torch.linalg.qr(torch.randn(rank, rank, generator=generator, dtype=torch.float64))[0] * gain
    mix = mix @ torch.diag(torch.linspace(1, 3, rank, dtype=torch.float64))
    turned = {p: replace(f, up=f.up.double() @ mix, down=torch.linalg.solve(mix, f.down.double())) for p, f in adapter.modules.items()}
    first, second = anatomy(adapter), anatomy(replace(adapter, modules=turned))
    for a, b in zip((*first.blocks, first.total), (*second.blocks, second.total), strict=True):
        assert (b.norm, b.share) == pytest.approx((a.norm, a.share))
        assert b.directions.effective == pytest.approx(a.directions.effective)
        assert (b.directions.for_90, b.directions.for_99) == (a.directions.for_90, a.directions.for_99)
    assert second.sufficient_rank == first.sufficient_rank


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), factor=st.floats(0.01, 100))
def test_a_stronger_adapter_has_the_same_directions(seed: int, factor: float) -> None:
    adapter = make_adapter(seed, 5)
    stronger = anatomy(replace(adapter, modules={p: replace(f, alpha=factor * f.alpha) for p, f in adapter.modules.items()}))
    plain = anatomy(adapter)
    assert stronger.total.norm == pytest.approx(factor * plain.total.norm)
    assert stronger.total.values == plain.total.values
    assert [b.share for b in stronger.blocks] == pytest.approx([b.share for b in plain.blocks])
    assert [b.directions.for_90 for b in stronger.blocks] == [b.directions.for_90 for b in plain.blocks]


def test_blocks_are_in_the_order_of_the_network() -> None:
    paths = [*SHAPES, "unet.conv_in", "unet.time_embedding.linear_1"]
    assert list(paths_by_block(paths, "sdxl")) == ["BASE", "TE", "IN00", "IN02", "IN04", "MID", "OUT05"]
    assert list(paths_by_block(paths, "unknown")) == list(paths_by_block(paths, "sd1"))
    assert paths_by_block([], "sd1") == {}
