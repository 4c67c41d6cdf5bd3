"""A merge that does not fit on the GPU is made on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch

from optimizer.adapters import Adapter
from optimizer.merging import Merged, Merger, Recipe
from optimizer.rendering import PromptSet, Renderer
from optimizer.search import evaluate
from optimizer.search.evaluate import Evaluator
from optimizer.search.sources import Source
from tests.merging.samples import assert_same_change, make_adapter

PAIR = [make_adapter(1), make_adapter(2)]
RECIPE = Recipe(method="ties", weights=(0.6, 0.5), density=0.5)


@dataclass
class Held:
    """What the evaluator reads of a source and of a renderer for a merge."""

    adapter: Adapter | None = None
    device: torch.device | None = None


class Scarce(Merger):
    """A merger that needs more memory than its device has, unless that is the CPU."""

    def __init__(self, adapters: Any, device: Any = "cpu", **options: Any) -> None:
        super().__init__(adapters, "cpu", **options)
        self.scarce = torch.device(device).type != "cpu"

    def measured(self, recipe: Recipe, *, dtype: torch.dtype = torch.float32) -> Merged:
        if self.scarce:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().measured(recipe, dtype=dtype)


def evaluator(device: str, told: list[str]) -> Evaluator:
    sources = [cast(Source, Held(adapter=adapter)) for adapter in PAIR]
    return Evaluator(sources, cast(Renderer, Held(device=torch.device(device))), cast(Any, None), cast(PromptSet, None), note=told.append)


def test_it_is_made_on_the_cpu_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "Merger", Scarce)
    told: list[str] = []
    scorer = evaluator("cuda", told)
    found = [scorer._merged(RECIPE).adapter for _ in range(2)]
    for merged in found:
        assert_same_change(merged, Merger(PAIR).merge(RECIPE, dtype=torch.float16), tolerance=0)
    assert told == ["out of memory while merging: candidates that are too large for the GPU are merged on the CPU"]


def test_on_the_cpu_there_is_nothing_to_fall_back_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Merger, recipe: Recipe, *, dtype: torch.dtype) -> Merged:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Merger, "measured", fail)
    with pytest.raises(RuntimeError, match="can't allocate"):
        evaluator("cpu", [])._merged(RECIPE)
