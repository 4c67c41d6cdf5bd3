"""How long diffusers takes to load one merged file, beside the sources one by one.

Run ``python -m benchmarks.loading [--rounds 5]``. The merge has the rank of one source. Both sides end with ``set_adapters``, in turns,
into a model without adapters; the median counts. The demo world's pipeline loads demo sources by ``load_lora_weights``. Stable Diffusion
XL's U-Net, whole and in bf16, loads random files of rank 32 for its 722 modules by ``load_lora_adapter``, as its pipeline does; its base
weights are allocated but never written, since no time here depends on them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from diffusers.utils import logging

from benchmarks.shapes import random_file, sdxl_shapes, sdxl_unet
from optimizer.adapters import load_adapter, save_adapter
from optimizer.merging import Recipe, merge
from optimizer.rendering import load_pipeline
from studies.demo.world import demo_base, demo_source

_DEMO = ("mosaic", "owl", "hat")
_GOALS = {2: 0.6, 3: 0.4}
Load = Callable[[Path, str], object]


def main() -> None:
    """Print a line for each model and number of sources."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    logging.set_verbosity_error()
    print(f"{'model':<12}{'sources':>8}{'rank':>6}{'one by one':>13}{'merged':>11}{'ratio':>8}{'goal':>8}")
    with tempfile.TemporaryDirectory() as folder:
        demo(Path(folder), asked.rounds)
        sdxl(Path(folder), asked.rounds)


def demo(folder: Path, rounds: int) -> None:
    """The demo world's pipeline."""
    pipeline: Any = load_pipeline(demo_base(), device="cpu", dtype=torch.float32)
    files = [demo_source(name).path for name in _DEMO]

    def load(file: Path, name: str) -> None:
        pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name=name)

    compared("demo", pipeline, load, pipeline.unload_lora_weights, files, folder, rounds)


def sdxl(folder: Path, rounds: int) -> None:
    """Stable Diffusion XL's U-Net."""
    with torch.device("meta"):
        model: Any = sdxl_unet()
    unet = model.to(torch.bfloat16).to_empty(device="cpu")
    shapes = {path: shape for path, shape in sdxl_shapes().items() if path.startswith("unet.")}
    files = [random_file(folder / f"xl{i}.safetensors", shapes, 32, i) for i in range(max(_GOALS))]
    for file in files:
        save_adapter(load_adapter(file), file, dialect="diffusers")

    def load(file: Path, name: str) -> None:
        unet.load_lora_adapter(str(file.parent), weight_name=file.name, adapter_name=name, prefix="unet")

    compared("SDXL U-Net", unet, load, unet.unload_lora, files, folder, rounds)


def compared(title: str, model: Any, load: Load, unload: Callable[[], object], files: Sequence[Path], folder: Path, rounds: int) -> None:
    """Load the first two, then all files, one by one and merged."""
    for count, goal in _GOALS.items():
        chosen = files[:count]
        merged, rank = merged_file(chosen, folder / "merged.safetensors")
        times = [(seconds(model, load, unload, chosen), seconds(model, load, unload, [merged])) for _ in range(rounds + 1)]
        single, whole = (median(column) for column in zip(*times[1:], strict=True))  # the first round warms up
        print(f"{title:<12}{count:>8}{rank:>6}{single:>11.3f} s{whole:>9.3f} s{whole / single:>8.2f}{f'≤ {goal}':>8}", flush=True)


def merged_file(files: Sequence[Path], path: Path) -> tuple[Path, int]:
    """Their sum at the greatest rank that one of them has, in the diffusers dialect."""
    adapters = [load_adapter(file) for file in files]
    rank = max(f.rank for adapter in adapters for f in adapter.modules.values())
    merged = merge(adapters, Recipe(method="linear", weights=(1 / len(files),) * len(files), rank=rank))
    return save_adapter(merged, path, dialect="diffusers"), rank


def seconds(model: Any, load: Load, unload: Callable[[], object], files: Sequence[Path]) -> float:
    """Load the files and switch them on, then take them off the clock."""
    names = [f"a{i}" for i in range(len(files))]
    begun = perf_counter()
    for file, name in zip(files, names, strict=True):
        load(file, name)
    model.set_adapters(names, [1 / len(files)] * len(files))
    took = perf_counter() - begun
    unload()
    return took


if __name__ == "__main__":
    main()
