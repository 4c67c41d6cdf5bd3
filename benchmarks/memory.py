"""How much memory a merge needs beside its sources and its result, in multiples of the largest ΔW.

Run ``python -m benchmarks.memory [--one-in 20] [--rank 32] [--methods linear ties]``. Three files have Stable Diffusion XL's shapes, of
which one module in so many is taken, and random values in fp16. Each merge runs in a process of its own, to the sources' rank on one
thread. Counted is the resident peak during the merge, less what was resident when the sources had been read, less the result, which is
kept in fp32; the unit is ΔW of the largest module in fp32 (10240 × 1280, 52 MB), which no dense method can do without.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.shapes import random_file, sampled, sdxl_shapes
from optimizer.merging import METHODS

_METHODS = ("linear", "ties", "dare_ties", "della_ties", "knots", "consensus")
_WEIGHTS = (0.7, 0.5, 0.6)
_PROGRAM = """
import json, sys, time
from pathlib import Path
import torch
from optimizer.adapters import load_adapter
from optimizer.merging import Merger, Recipe
torch.set_num_threads(1)
recipe, files, small = Recipe.from_json(sys.argv[1]), sys.argv[3:], sys.argv[2]
def resident(field):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
Merger([load_adapter(small)] * 3, keep=False).merge(recipe)  # libraries start their threads and workspaces
adapters = [load_adapter(file) for file in files]
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
begun = time.perf_counter()
merged = Merger(adapters, keep=False).merge(recipe)
seconds = time.perf_counter() - begun
peak = resident("VmHWM")
result = sum(4 * (f.up.numel() + f.down.numel()) for f in merged.modules.values())
print(json.dumps({"sources": before, "growth": peak - before, "result": result, "seconds": seconds}))
"""


def main() -> None:
    """Print one line a method."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--one-in", type=int, default=20, help="take one module in so many of each shape, at least one")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument(
        "--methods", nargs="+", choices=[name for name, method in METHODS.items() if not method.calibrated], default=_METHODS
    )
    asked = parser.parse_args()
    shapes = sampled(sdxl_shapes(), asked.one_in)
    largest = 4 * max(math.prod(shape) for shape in shapes.values())
    print(f"{len(_WEIGHTS)} files of rank {asked.rank}, {len(shapes)} of SDXL's {len(sdxl_shapes())} modules, 1 thread", end=", ")
    print(f"unit {largest / 1e6:.0f} MB")
    print(f"{'method':<18}{'peak':>9}{'result':>10}{'working':>10}{'multiple':>10}{'time':>10}")
    with tempfile.TemporaryDirectory() as folder:
        files = [random_file(Path(folder) / f"xl{i}.safetensors", shapes, asked.rank, i) for i in range(len(_WEIGHTS))]
        small = random_file(Path(folder) / "small.safetensors", dict(list(shapes.items())[-1:]), asked.rank, 0)
        for method in asked.methods:
            row(method, asked.rank, [small, *files], largest)


def row(method: str, rank: int, files: list[Path], unit: int) -> None:
    """Merge in a fresh process, and print what it needed."""
    recipe = {"method": method, "weights": _WEIGHTS, "rank": rank, **METHODS[method].starting_values()}
    command = [sys.executable, "-c", _PROGRAM, json.dumps(recipe), *map(str, files)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    working = found["growth"] - found["result"]
    print(f"{method:<18}{found['growth'] / 1e6:>6.0f} MB{found['result'] / 1e6:>7.0f} MB{working / 1e6:>7.0f} MB", end="")
    print(f"{working / unit:>9.1f}x{found['seconds']:>8.1f} s", flush=True)


if __name__ == "__main__":
    main()
