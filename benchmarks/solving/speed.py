"""Speed: what distillation costs at the size of real models, on pipelines with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch

from benchmarks.bases import now, small_shapes
from benchmarks.pipelines import full_shapes, saved, sources
from benchmarks.solving.measuring import measured
from optimizer.adapters import load_adapter
from optimizer.calibration.compositions import Composition
from optimizer.calibration.live.model import LiveModel
from optimizer.calibration.training import Training, train
from optimizer.calibration.trajectories import record
from optimizer.merging import correction_of
from optimizer.merging.methods.solved import CORRECTION
from optimizer.rendering import Loading, Prompt, Renderer, RenderSettings, Subject, load_renderer

T = TypeVar("T")

_SOURCES, _STEPS = 3, 5
_PROMPTS = (Prompt("a red fox in snow", 0), Prompt("an owl at sea", 1))


def measure(family: str, *, small: bool) -> None:
    """Prints seconds a step and the peak of memory, of steps on one point each with gradient checkpointing."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with TemporaryDirectory() as folder:
        base = saved(family, Path(folder), device=device, small=small)
        shapes = small_shapes(base) if small else full_shapes(family)
        files = sources(family, Path(folder), shapes, _SOURCES, 4 if small else 32)
        settings = RenderSettings(batch=1, resolution=32 if small else 1024, steps=4)
        adapters = [load_adapter(file) for file in files]
        loading = Loading(device=device, precision="fp32" if small else "bf16")
        renderer = load_renderer(str(base), settings, loading, adapters=adapters)
        assert isinstance(renderer, Renderer)
        model = LiveModel.of(renderer, adapters, [Subject(f"source {i}", "concept", f"word{i}") for i in range(_SOURCES)])
        print(f"{family}{', tiny' if small else ''}: {_SOURCES} sources of rank {4 if small else 32} on {device}, {len(shapes)} modules")
        begun = now(renderer.device)
        points, peak = _peak(device, lambda: record(model, Composition((1.0,) * _SOURCES), _PROMPTS))
        print(f"drawing the composition   {(now(renderer.device) - begun) / len(points):8.2f} s a point   {peak / 1e9:8.2f} GB")
        model = model.corrected(correction_of(adapters, int(CORRECTION.start), model.untouched_texts))
        moments = {path: torch.eye(sum(ranks)).double() for path, ranks in model.modules.ranks.items()}
        start = {path: 0.8 * own for path, own in model.modules.selected([True] * _SOURCES).items()}
        took: list[float] = []

        def steps() -> None:
            model.denoiser.save_memory()
            begun = now(renderer.device)
            for _ in train(model, points, start, moments, Training(_STEPS, batch=1)):
                took.append(now(renderer.device) - begun)
                begun = now(renderer.device)

        _, peak = _peak(device, steps)
        print(f"distillation, one point   {sum(took[1:]) / (len(took) - 1):8.2f} s a step    {peak / 1e9:8.2f} GB, with checkpointing")


def _peak(device: str, work: Callable[[], T]) -> tuple[T, int]:
    """Returns the result and the peak of memory: of the GPU in all, or of the process above that before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    result, _, peak = measured(work)
    return result, torch.cuda.max_memory_allocated() if device == "cuda" else peak
