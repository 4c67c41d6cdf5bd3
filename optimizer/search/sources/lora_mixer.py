"""Candidates of LoRAs, merged on the GPU if its memory is sufficient, else on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from optimizer.adapters import Adapter
from optimizer.merging import DTYPES, Merged, Merger, Recipe, Router
from optimizer.rendering.memory.oom import Note, attempt
from optimizer.search.sources.source import RouterLookup


class LoraMixer:
    """Merges LoRAs on the renderer's device, with the sources kept there, or on the CPU if they do not fit.

    Args:
        adapters: adapters of the sources.
        device: device of the renderer.
        note: callback that receives a message, once, if the sources do not fit on the GPU together.
        router: returns the router that a recipe names as its calibration; None if there are no routers.
    """

    def __init__(
        self, adapters: Sequence[Adapter], device: torch.device, note: Note | None = None, router: RouterLookup | None = None
    ) -> None:
        self._adapters, self._device, self._note, self._router = adapters, device, note, router
        self._merger: Merger | None = None

    def alone(self, source: int) -> Adapter:
        """Returns the adapter of one source, unmerged."""
        return self._adapters[source]

    def mixed(self, recipe: Recipe) -> tuple[Adapter, float]:
        """Returns the merge with weights as its file stores them, and its compression error.

        If all weights are 0 the merge has no modules. Such a proposal gets a low score, so that the sampler avoids the region.
        """
        if not any(recipe.weights):
            return Adapter(name="nothing", modules={}, base=self._adapters[0].base), 0.0
        found = self._here(recipe) if self._device.type == "cpu" else attempt(self._here, recipe) or self._on_cpu(recipe)
        return found.adapter, found.error

    def _here(self, recipe: Recipe) -> Merged:
        if self._merger is None:
            self._merger = Merger(self._adapters, self._device)
        for router in self._routers(recipe):
            self._merger.add_router(router)
        return self._merger.measured(recipe, dtype=DTYPES[recipe.dtype])

    def _on_cpu(self, recipe: Recipe) -> Merged:
        """Merges a candidate on the CPU, because the GPU has not enough memory for it."""
        if self._note:
            self._note("out of memory while merging: candidates that are too large for the GPU are merged on the CPU")
        self._note = None
        return Merger(self._adapters, "cpu", keep=False, routers=self._routers(recipe)).measured(recipe, dtype=DTYPES[recipe.dtype])

    def _routers(self, recipe: Recipe) -> list[Router]:
        return [self._router(recipe.calibration)] if self._router and recipe.calibration else []
