"""Krylov iteration finds what a dense SVD finds, or says that it did not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from optimizer.merging.algebra.compress import compressed
from optimizer.merging.algebra.krylov import leading
from tests.merging.samples import relative_error


def spectral(decay: float, rows: int = 400, columns: int = 500, seed: int = 0) -> Tensor:
    """A matrix whose k-th singular value is k to the power of −decay."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(rows, rows, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(columns, rows, generator=generator)).Q
    found: Tensor = left * torch.arange(1, rows + 1).pow(-decay) @ right.T
    return found


def best_error(matrix: Tensor, rank: int) -> float:
    energy = torch.linalg.svdvals(matrix.double()).square()
    return float((energy[rank:].sum() / energy.sum()).sqrt())


@pytest.mark.parametrize("rank", [1, 4, 16, 40])
@pytest.mark.parametrize("decay", [0.1, 0.3, 1.0, 3.0])
def test_large_changes_are_compressed_as_well_as_by_a_dense_svd(decay: float, rank: int) -> None:
    matrix = spectral(decay)
    for turned in (matrix, matrix.T):
        error = relative_error(compressed(turned[None], rank).dense()[0], turned)
        assert error == pytest.approx(best_error(matrix, rank), rel=1e-4, abs=2e-6)


def test_singular_vectors_come_in_order_and_orthonormal() -> None:
    matrix = spectral(1.0)
    found, converged = leading(matrix[None], 20)
    assert converged.tolist() == [True]
    torch.testing.assert_close(found[0].T @ found[0], torch.eye(20), atol=1e-5, rtol=0)
    sigma = (found[0].T @ matrix).norm(dim=1)
    torch.testing.assert_close(sigma, torch.arange(1, 21) ** -1.0, rtol=1e-3, atol=0)


@pytest.mark.parametrize("true_rank", [0, 1, 8, 30])
def test_changes_of_less_rank_than_asked_are_kept_exactly(true_rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(400, true_rank, generator=generator) @ torch.randn(true_rank, 500, generator=generator)
    _, converged = leading(matrix[None], 32)
    assert converged.tolist() == [True]
    found = compressed(matrix[None], 32)
    torch.testing.assert_close(found.dense()[0], matrix, atol=1e-4, rtol=0)
    assert bool(torch.isfinite(found.up).all() & torch.isfinite(found.down).all())


def test_a_module_is_compressed_alike_alone_and_in_a_stack_and_no_random_state_is_touched() -> None:
    state = torch.random.get_rng_state()
    alone, _ = leading(spectral(0.5)[None], 8)
    stacked, _ = leading(torch.stack([spectral(0.5), -spectral(0.5)]), 8)
    torch.testing.assert_close(alone[0], stacked[0])
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_module_that_does_not_converge_is_told_and_gets_an_exact_basis() -> None:
    """One module of the stack has a spectrum that iteration finds, the other has none: each gets as good a result as alone."""
    generator = torch.Generator().manual_seed(0)
    clear = torch.randn(160, 8, generator=generator) @ torch.randn(8, 200, generator=generator)
    noise = torch.randn(160, 200, generator=generator)
    stack = torch.stack([clear, noise])
    assert leading(stack, 20)[1].tolist() == [True, False]
    found = compressed(stack, 20).dense()
    assert relative_error(found[0], clear) < 1e-5
    assert relative_error(found[1], noise) == pytest.approx(best_error(noise, 20), rel=1e-5)
