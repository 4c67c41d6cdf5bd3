"""A merge that does not fit on the GPU is made on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from optimizer.adapters import Adapter
from optimizer.merging import Merged, Merger, Recipe
from optimizer.search.sources import lora_mixer
from optimizer.search.sources.lora_mixer import LoraMixer
from tests.merging.samples import assert_same_change, make_adapter

PAIR = [make_adapter(1), make_adapter(2)]
RECIPE = Recipe(method="ties", weights=(0.6, 0.5), density=0.5)


class Scarce(Merger):
    """A merger that needs more memory than its device has, unless that is the CPU."""

    def __init__(self, adapters: Any, device: Any = "cpu", **options: Any) -> None:
        super().__init__(adapters, "cpu", **options)
        self.scarce = torch.device(device).type != "cpu"

    def measured(self, recipe: Recipe, *, dtype: torch.dtype = torch.float32, tick: Callable[[int, int], None] | None = None) -> Merged:
        if self.scarce:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().measured(recipe, dtype=dtype, tick=tick)


def mixer(device: str, told: list[str]) -> LoraMixer:
    return LoraMixer(PAIR, torch.device(device), told.append)


def test_it_is_made_on_the_cpu_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_mixer, "Merger", Scarce)
    told: list[str] = []
    made = mixer("cuda", told)
    for merged in [made.mixed(RECIPE)[0] for _ in range(2)]:
        assert isinstance(merged, Adapter)
        assert_same_change(merged, Merger(PAIR).merge(RECIPE, dtype=torch.float16), tolerance=0)
    assert told == ["out of memory while merging: candidates that are too large for the GPU are merged on the CPU"]


def test_on_the_cpu_there_is_nothing_to_fall_back_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Merger, recipe: Recipe, *, dtype: torch.dtype) -> Merged:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Merger, "measured", fail)
    with pytest.raises(RuntimeError, match="can't allocate"):
        mixer("cpu", []).mixed(RECIPE)
