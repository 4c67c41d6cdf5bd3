"""How long ``optimize inspect`` takes on files of Stable Diffusion XL's size.

Run ``python -m benchmarks.inspection [--files 3] [--rank 32]``. The files have the true shapes, 722 modules of the U-Net and 264 of
the text encoders, and random values in fp16; every command runs in a process of its own, with the import of torch and the reading.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.shapes import random_file, sdxl_shapes


def seconds(arguments: list[str]) -> tuple[float, str]:
    """How long ``optimize`` takes with these arguments, and its output."""
    begun = time.perf_counter()
    found = subprocess.run([sys.executable, "-m", "optimizer", *arguments], capture_output=True, text=True, check=True)
    return time.perf_counter() - begun, found.stdout


def main() -> None:
    """Print one line a command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=3)
    parser.add_argument("--rank", type=int, default=32)
    asked = parser.parse_args()
    shapes = sdxl_shapes()
    parts = Counter(path.partition(".")[0] for path in shapes)
    with tempfile.TemporaryDirectory() as folder:
        files = [random_file(Path(folder) / f"xl{i}.safetensors", shapes, asked.rank, seed=i) for i in range(asked.files)]
        size = files[0].stat().st_size
        print(f"{len(files)} files of {dict(parts)} modules, rank {asked.rank}, {size / 1e6:.0f} MB each, {os.cpu_count()} cores")
        for arguments in (["inspect", str(files[0]), "--json"], ["inspect", *map(str, files), "--json"], ["ls", folder, "--json"]):
            took, out = seconds(arguments)
            print(f"optimize {arguments[0]:<8} {len(json.loads(out)['files'])} files {took:>6.1f} s")


if __name__ == "__main__":
    main()
