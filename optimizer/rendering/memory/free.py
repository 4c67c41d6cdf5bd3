"""Free memory of a device, and number of values stored in model files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from safetensors import SafetensorError, safe_open

from optimizer.adapters.files.variants import is_fp16

_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Returns the free bytes on a device; for the CPU, limited by the container's memory limit."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return min(int(psutil.virtual_memory().available), *_left_in_container())


def _left_in_container() -> Iterator[int]:
    """Yields the bytes left within the container's memory limit, or a very large number without a limit."""
    try:
        most = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        most = "max"
    yield max(0, int(most) - used) if most.isdigit() else 1 << 62


def amount(size: float) -> str:
    """Returns a number of bytes as text: 340 MB, 1.2 GB."""
    for unit in ("MB", "GB"):
        size /= 1e6 if unit == "MB" else 1e3
        if size < 1000:
            break
    return f"{size:.1f} {unit}" if unit == "GB" and size < 10 else f"{size:.0f} {unit}"


def stored_numbers(place: Path) -> int:
    """Returns how many numbers a safetensors file, or those of a folder, contain, from their headers; 0 if there is no such file.

    If a folder contains several variants, only the largest counts.
    """
    files = [place] if place.is_file() else list(place.rglob("*.safetensors")) if place.is_dir() else []
    folders: dict[tuple[Path, bool], int] = {}
    for file in files:
        key = (file.parent, is_fp16(file))
        folders[key] = folders.get(key, 0) + _numbers(file)
    return sum(max(folders.get((folder, True), 0), folders.get((folder, False), 0)) for folder in {folder for folder, _ in folders})


def _numbers(file: Path) -> int:
    try:
        with safe_open(file, framework="pt") as opened:
            return sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return 0  # loading reports the error
