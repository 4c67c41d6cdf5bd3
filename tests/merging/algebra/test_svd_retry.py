"""A decomposition that does not converge in single precision is repeated in double precision, and who fails there too is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from optimizer.adapters import Adapter
from optimizer.errors import RecipeError
from optimizer.merging import merge
from optimizer.merging.algebra.svd_retry import LinAlgError
from tests.merging.samples import LOSSY, PATHS, assert_same_change, make_adapter, recipe

SOURCES = (make_adapter(1), make_adapter(2))
PLACES = ("svd", "svdvals", "eigh", "eigvalsh", "qr")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


class Failing(TorchFunctionMode):
    """Decompositions that fail where ``fails`` says so of their input."""

    def __init__(self, fails: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.fails, self.failed, self.places = fails, 0, {getattr(torch.linalg, name) for name in PLACES}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.places and self.fails(args[0]):
            self.failed += 1
            raise LinAlgError("linalg.svd: the algorithm failed to converge")
        return func(*args, **(kwargs or {}))


@contextmanager
def failing(fails: Callable[[Tensor], bool]) -> Iterator[Failing]:
    with Failing(fails) as mode:
        yield mode


def single(matrix: Tensor) -> bool:
    return matrix.dtype == torch.float32


def merged(settings: dict[str, object], device: str = "cpu") -> Adapter:
    return merge(SOURCES, recipe(settings, 0.7, 0.5), device=device)


@pytest.mark.parametrize("settings", [*LOSSY, {"method": "svd", "rank": 4}], ids=str)
def test_the_merge_is_the_same(settings: dict[str, object]) -> None:
    wanted = merged(settings)
    with failing(single):
        found = merged(settings)
    assert_same_change(found, wanted, tolerance=1e-5)
    for path, factors in found.modules.items():
        assert (factors.up.dtype, factors.rank, factors.shape) == (torch.float32, wanted.modules[path].rank, wanted.modules[path].shape)


@pytest.mark.parametrize("settings", [{"rank_energy": 0.9}, {"target_mb": 0.02}], ids=str)
def test_bounded_sizes_are_the_same(settings: dict[str, object]) -> None:
    with failing(single) as mode:
        found = merged({"method": "karcher", **settings})
    assert mode.failed
    assert_same_change(found, merged({"method": "karcher", **settings}), tolerance=1e-5)


def test_large_matrices_are_the_same() -> None:
    """Where the leading singular vectors are found by iteration."""
    shapes = {PATHS[1]: (160, 180)}
    pair = [make_adapter(seed, rank=8, paths=PATHS[1:2], shapes=shapes) for seed in (1, 2)]
    ties = recipe({"method": "ties", "density": 0.5, "rank": 12}, 0.5, 0.5)
    with failing(single) as mode:
        found = merge(pair, ties)
    assert mode.failed
    assert_same_change(found, merge(pair, ties), tolerance=1e-4)


def test_one_module_that_fails_does_not_stop_its_stack() -> None:
    paths = [f"unet.down_blocks.0.attentions.{i}.proj_in" for i in range(3)]
    pair = [make_adapter(seed, paths=paths, shapes=dict.fromkeys(paths, (8, 6))) for seed in (1, 2)]
    svd = recipe({"method": "svd", "rank": 2}, 0.5, 0.5)
    with failing(lambda matrix: len(matrix) > 1) as mode:
        found = merge(pair, svd)
    assert mode.failed == 1
    assert_same_change(found, merge(pair, svd))


def test_what_fails_in_double_precision_too_is_named() -> None:
    rows = SOURCES[0].modules[PATHS[0]].shape[0]
    message = f"^{PATHS[0]}: .*in double precision neither — look for huge values in this module"
    with failing(lambda matrix: matrix.shape[-2] == rows), pytest.raises(RecipeError, match=message):
        merged({"method": "svd", "rank": 2})


def test_values_that_are_not_finite_are_still_told_as_such() -> None:
    broken = SOURCES[0].modules[PATHS[2]].up.clone()
    broken[0, 0] = torch.inf
    bad = replace(SOURCES[0], modules={**SOURCES[0].modules, PATHS[2]: replace(SOURCES[0].modules[PATHS[2]], up=broken)})
    with failing(single), pytest.raises(RecipeError, match=f"{PATHS[2]}: the merged change is not finite"):
        merge([bad, SOURCES[1]], recipe({"method": "svd", "rank": 2}, 0.5, 0.5))


@CUDA
def test_the_result_is_back_on_its_device() -> None:
    with failing(lambda matrix: matrix.is_cuda) as mode:
        found = merged({"method": "svd", "rank": 2}, device="cuda")
    assert mode.failed
    assert all(factors.up.is_cuda and factors.down.is_cuda for factors in found.modules.values())
