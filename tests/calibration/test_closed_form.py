"""Closed forms and coordinates of routers against independent references."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from optimizer.calibration.closed_form import Group, solved
from optimizer.calibration.compositions import STYLE_FLOOR, Composition, local_shares
from optimizer.calibration.live.routed_modules import RoutedModules, Routing
from optimizer.calibration.local_error import LocalErrors, balanced
from optimizer.calibration.whitening import Whitening


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def group(z: torch.Tensor, wanted: torch.Tensor, merged: torch.Tensor | None = None) -> Group:
    """One module's group of prompts: z and z̃ are (tokens, Σr)."""
    other = z if merged is None else merged
    count = len(z)
    return Group({"m": wanted}, {"m": z.T @ z / count}, {"m": z.T @ other / count}, {"m": other.T @ other / count})


@pytest.mark.parametrize("later", [False, True], ids=["ssr", "iteris"])
def test_the_closed_form_is_the_least_squares_solution(later: bool) -> None:
    first, second = drawn(80, 5, seed=1), drawn(80, 5, seed=2)
    inputs = (drawn(80, 5, seed=3) + first, drawn(80, 5, seed=4) + second) if later else (first, second)
    one, two = torch.tensor([1.0, 1, 0, 0, 0]), torch.tensor([0.0, 0, 1, 1, 1])
    found = solved([group(first, one, inputs[0]), group(second, two, inputs[1])], ridge=0.0)["m"]
    wanted = torch.cat([first * one, second * two])
    reference = torch.linalg.lstsq(torch.cat(inputs), wanted).solution.T
    assert torch.allclose(found.double(), reference, atol=1e-5)


def test_a_large_ridge_gives_the_stack() -> None:
    parts = [group(drawn(30, 3, seed=1), torch.tensor([1.0, 0, 0])), group(drawn(30, 3, seed=2), torch.tensor([0.0, 1, 1]))]
    assert torch.allclose(solved(parts, ridge=1e6)["m"], torch.eye(3), atol=1e-4)


def test_whitened_coordinates_measure_the_change_of_the_output() -> None:
    up, z = (
        drawn(40, 6, seed=1) * torch.logspace(-0.3, 0.3, 6).double(),
        drawn(4000, 6, seed=2) @ (torch.eye(6).double() + 0.3 * drawn(6, 6, seed=3)),
    )
    moments = z.T @ z / len(z)
    white = Whitening.of(up, moments)
    ratios = []
    for seed in range(5):
        inner = drawn(6, 6, seed=10 + seed).float()
        output = z @ white.router(inner).double().T @ up.T
        ratios.append(float(output.square().sum(dim=1).mean() / inner.double().square().sum()))
    assert max(ratios) / min(ratios) < 1.05
    router = drawn(6, 6, seed=4).float()
    assert torch.allclose(white.router(white.coordinates(router)), router, atol=1e-3)
    assert float(white.coordinates(torch.ones(6)).square().sum(dim=1).mean()) == pytest.approx(1.0, rel=1e-3)


ASKED = torch.tensor([[True, True], [True, False], [False, False]])


@pytest.mark.parametrize(
    ("composition", "step", "weights"),
    [
        (Composition((1.0, 0.8)), 0, [[1, 0.8], [1, 0], [0, 0]]),
        (Composition((1.0, 1.0), "average"), 3, [[0.5, 0.5], [1, 0], [0, 0]]),
        (Composition((1.0, 1.0), "switch"), 0, [[1, 0], [1, 0], [0, 0]]),
        (Composition((1.0, 1.0), "switch"), 1, [[0, 1], [1, 0], [0, 0]]),
        (Composition((1.0, 1.0), windows=((0.0, 0.5), (0.5, 1.0))), 0, [[1, 0], [1, 0], [0, 0]]),
        (Composition((1.0, 1.0), windows=((0.0, 0.5), (0.5, 1.0))), 3, [[0, 1], [0, 0], [0, 0]]),
    ],
)
def test_factors_of_a_composition(composition: Composition, step: int, weights: list[list[float]]) -> None:
    assert torch.allclose(composition.weights(ASKED, step, 4), torch.tensor(weights, dtype=torch.float32))


class Modules:
    """One module of given factors."""

    def __init__(self, up: torch.Tensor) -> None:
        self.up = up

    def factors(self, path: str) -> tuple[torch.Tensor, torch.Tensor]:
        return self.up, torch.eye(self.up.shape[1])


def test_the_local_error_is_what_the_module_writes_wrongly() -> None:
    up, z = drawn(7, 5, seed=1), drawn(200, 5, seed=2)
    wanted = torch.tensor([1.0, 1, 0, 0, 0])
    router = drawn(5, 5, seed=3).float()
    found = LocalErrors(cast(RoutedModules, Modules(up)), [group(z, wanted)]).of({"m": router})
    right, made = z * wanted @ up.T, z @ router.double().T @ up.T
    assert float(found[0]) == pytest.approx(float((made - right).square().sum() / right.square().sum()), rel=1e-6)


def test_the_balanced_solution_has_the_smallest_largest_error() -> None:
    modules = cast(RoutedModules, Modules(drawn(9, 5, seed=5)))
    first, second = torch.tensor([1.0, 1, 0, 0, 0]), torch.tensor([0.0, 0, 1, 1, 1])
    shared = drawn(80, 5, seed=6)
    parts = [group(3 * shared + drawn(80, 5, seed=7), first), group(shared + 0.3 * drawn(80, 5, seed=8), second)]

    def largest(routing: Routing) -> float:
        return float(LocalErrors(modules, parts).of(routing).max())

    grid = [largest(solved(parts, 0.01, (share, 1 - share))) for share in torch.linspace(0.01, 0.99, 99).tolist()]
    assert largest(balanced(modules, parts, 0.01)) < min(0.8 * largest(solved(parts, 0.01)), 1.02 * min(grid))


@pytest.mark.parametrize("shape", [(2, 4, 6), (24, 2)], ids=["channels, height, width", "tokens, channels"])
@pytest.mark.parametrize("repeats", [1, 2])
def test_a_source_stands_back_where_another_acts(shape: tuple[int, ...], repeats: int) -> None:
    added = torch.full((2, 3 * repeats, *shape), 1e-3)
    first, last = (added[..., :2], added[..., 4:]) if len(shape) == 3 else (added[:, :, :8], added[:, :, 16:])
    first[0], last[1] = 1.0, 1.0
    both = torch.ones(2, 3 * repeats, dtype=torch.bool)
    both[1, 2::3] = False  # the third picture asks for the first source alone
    shares = local_shares(added, both, 3)
    assert shares.shape == (2, 3 * repeats, *((1, 4, 6) if len(shape) == 3 else (24, 1)))
    left, right = (shares[..., :1], shares[..., 5:]) if len(shape) == 3 else (shares[:, :, :8], shares[:, :, 16:])
    together, alone = [0, 1], 2
    assert torch.allclose(left[0, together], torch.ones(()))
    assert torch.allclose(right[1, together], torch.ones(()))
    assert float(right[0, together].max()) < 0.01
    assert float(left[1, together].max()) < 0.01
    assert torch.allclose(shares[0, alone], torch.ones(()))
    assert not shares[1, alone].any()


def test_a_floor_is_the_least_share_where_a_source_acts() -> None:
    added = torch.full((2, 2, 2, 4, 6), 1e-3)
    added[0, ..., :2], added[1, ..., 4:] = 1.0, 1.0
    acting = torch.tensor([[True, True], [True, False]])
    plain, floored = local_shares(added, acting, 2), local_shares(added, acting, 2, (0.0, 0.25))
    assert torch.equal(floored[0], plain[0])
    torch.testing.assert_close(floored[1, 0], 0.25 + 0.75 * plain[1, 0])
    assert not floored[1, 1].any()


def test_styles_have_a_floor_in_the_composition_that_merges_are_solved_on() -> None:
    assert Composition.teacher(["character", "style", "concept"]).floors == (0.0, STYLE_FLOOR, 0.0)


def test_sources_that_act_alike_all_count_in_full() -> None:
    added = drawn(1, 2, 4, 8, 8, seed=5).float().expand(3, -1, -1, -1, -1)
    assert torch.allclose(local_shares(added, torch.ones(3, 2, dtype=torch.bool), 2), torch.ones(()))
