"""How long reading a LoRA file takes, and how much memory it holds, beside safetensors' own ``load_file``.

Run ``python -m benchmarks.reading [--rank 32] [--repeats 5]``. The files have the true shapes of their families and random values in
fp16, under sd-scripts' names. ``load_file`` only maps the file; ``load_adapter`` reads and hashes every byte, checks every value, names
every module and takes fused projections apart. Each call runs in a process of its own, on a file that the system's cache holds; the
time is the least of the repeats, memory the growth of the process's resident set.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.shapes import Shapes, flux_shapes, qwen_shapes, random_file, sd1_shapes, sd2_shapes, sd3_shapes, sdxl_shapes

_FAMILIES: dict[str, Callable[[], Shapes]] = {
    **{"sd1": sd1_shapes, "sd2": sd2_shapes, "sdxl": sdxl_shapes},
    **{"sd3": sd3_shapes, "flux1": flux_shapes, "qwen-image": qwen_shapes},
}
_PROGRAM = """
import json, resource, sys, time
import torch
from safetensors.torch import load_file
from optimizer.adapters import load_adapter
call = {"load_file": load_file, "load_adapter": load_adapter}[sys.argv[1]]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
load_adapter(sys.argv[3])  # imports and tables
before = resident()
begun = time.perf_counter()
held = call(sys.argv[2])
seconds = time.perf_counter() - begun
tensors = held.values() if isinstance(held, dict) else [t for f in held.modules.values() for t in (f.up, f.down)]
total = sum(float(t.sum()) for t in tensors)  # touches every page
print(json.dumps({"seconds": seconds, "held": resident() - before, "base": getattr(held, "base", "")}))
"""


def measured(call: str, file: Path, small: Path, repeats: int) -> tuple[float, float, str]:
    """Least seconds, greatest bytes held, and the family that was recognised."""
    outcomes = []
    for _ in range(repeats):
        command = [sys.executable, "-c", _PROGRAM, call, str(file), str(small)]
        outcomes.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return min(o["seconds"] for o in outcomes), max(o["held"] for o in outcomes), str(outcomes[0]["base"])


def main() -> None:
    """Print one line a family."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    print(f"{'family':<12}{'modules':>8}{'file':>10}{'load_file':>12}{'load_adapter':>14}{'held / file':>13}")
    with tempfile.TemporaryDirectory() as folder:
        small = random_file(Path(folder) / "small.safetensors", dict(list(sd1_shapes().items())[:8]), 1, 0, "sd1")
        for family, shapes in _FAMILIES.items():
            file = random_file(Path(folder) / f"{family}.safetensors", shapes(), asked.rank, 0, family)
            size = file.stat().st_size
            peer, _, _ = measured("load_file", file, small, asked.repeats)
            own, held, base = measured("load_adapter", file, small, asked.repeats)
            print(f"{base:<12}{len(shapes()):>8}{size / 1e6:>7.0f} MB{peer:>10.2f} s{own:>12.2f} s{held / size:>13.2f}")
            file.unlink()


if __name__ == "__main__":
    main()
