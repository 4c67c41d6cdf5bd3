"""What a smaller file gives up: ``python -m benchmarks.sizes``.

Two sources are merged linearly without a limit, then with ``prune`` at several shares of the energy, then with ``target_mb``. Each file
is written in fp16; size and error are those of the file, the error that of what is read back against the unlimited merge, over all
modules. One merge is of the demo world's sources; the other has Stable Diffusion XL's shapes, all 986 modules, and random factors whose
k-th singular value falls about as 1/k, so that there is something to prune.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.shapes import random_adapter, sdxl_shapes
from optimizer.adapters import Adapter, load_adapter, save_adapter
from optimizer.merging import Recipe, merge, merge_report
from studies.demo.world import demo_source

_SHARES = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05)


def main() -> None:
    """Print one table a merge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description=__doc__)
    parser.add_argument("--sources", nargs=2, default=("neon", "octopus"), help="names of demo sources")
    parser.add_argument("--rank", type=int, default=32, help="of each random source")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    curve(" + ".join(asked.sources), [load_adapter(demo_source(name).path) for name in asked.sources])
    curve("two of SDXL's shapes", [random_adapter(f"s{i}", sdxl_shapes(), asked.rank, i, decay=1.0) for i in range(2)])


def curve(title: str, sources: Sequence[Adapter]) -> None:
    """Print what each limit makes of the merge of these sources."""
    print(f"{title}, ranks {sorted({f.rank for a in sources for f in a.modules.values()})}, {len(merged_paths(sources))} modules")
    print(f"{'limit':<20}{'file':>10}{'of whole':>10}{'mean rank':>11}{'energy lost':>13}{'error':>9}")
    whole = written(sources, {}, 0.0)
    for share in _SHARES[1:]:
        written(sources, {"prune": share}, whole)
    for part in (0.5, 0.25):
        written(sources, {"target_mb": float(f"{whole * part / 1e6:.2g}")}, whole)
    print(flush=True)


def written(sources: Sequence[Adapter], limit: dict[str, Any], whole: float) -> float:
    """Merge, write, read back and compare; returns the file's size in bytes."""
    plain = Recipe(method="linear", weights=(0.5, 0.5))
    merged = merge(sources, plain.replaced(**limit))
    with tempfile.TemporaryDirectory() as folder:
        file = save_adapter(merged, Path(folder) / "merged.safetensors")
        size, found = file.stat().st_size, load_adapter(file)
    fidelity = merge_report(sources, plain, found).total
    rank = sum(f.rank for f in found.modules.values()) / len(found.modules)
    label = ", ".join(f"{name} {value:g}" for name, value in limit.items()) or "none"
    print(f"{label:<20}{size / 1e6:>7.2f} MB{size / (whole or size):>10.1%}{rank:>11.1f}", end="")
    print(f"{fidelity.error**2:>13.3%}{fidelity.error:>9.4f}", flush=True)
    return float(size)


def merged_paths(sources: Sequence[Adapter]) -> set[str]:
    """All modules that a source changes."""
    return {path for source in sources for path in source.modules}


if __name__ == "__main__":
    main()
