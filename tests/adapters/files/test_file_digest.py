"""Digests of large files: every tensor is looked at, and none as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from optimizer.adapters.files.digest import digest_file

MIB = 1 << 20


def digest(file: Path) -> str:
    found = hashlib.sha256()
    digest_file(found, file)
    return found.hexdigest()


def test_a_training_of_a_few_layers_shows(tmp_path: Path) -> None:
    """As of models that differ in attention alone: what lies first and last in the file, megabytes of it, is the same."""
    draw = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(MIB // 2, generator=draw) for name in ("a.conv_in", "z.conv_out")}
    tensors |= {f"b.attention.{i}": torch.randn(1000, generator=draw) for i in range(5)}
    seen = {digest(save(tensors, tmp_path / "base.safetensors"))}
    for name in tensors:
        changed = tensors | {name: tensors[name] + 0.01}
        seen.add(digest(save(changed, tmp_path / "changed.safetensors")))
    assert len(seen) == 1 + len(tensors)
    assert digest(save(tensors, tmp_path / "again.safetensors")) in seen


def save(tensors: dict[str, torch.Tensor], file: Path) -> Path:
    save_file(tensors, file)
    return file


def put(data: bytearray, at: int) -> None:
    data[at : at + 20_000] = b"\1" * 20_000


@pytest.mark.parametrize(
    "begin",
    [lambda data: None, lambda data: data.__setitem__(slice(0, 8), (8).to_bytes(8, "little")), lambda data: put(data, 0)],
    ids=["zeros", "no header", "no length"],
)
def test_other_large_files_are_sampled_all_over(tmp_path: Path, begin: Callable[[bytearray], None]) -> None:
    seen = set[str]()
    for at in (None, MIB, 2 * MIB, 3 * MIB - 20_000):
        data = bytearray(3 * MIB)
        begin(data)
        if at is not None:
            put(data, at)
        (tmp_path / "x.bin").write_bytes(data)
        seen.add(digest(tmp_path / "x.bin"))
    assert len(seen) == 4


def test_small_files_are_read_whole_and_sizes_count(tmp_path: Path) -> None:
    seen = set[str]()
    for data in (b"", b"\0", bytes(100), bytes(99) + b"\1"):
        (tmp_path / "x").write_bytes(data)
        seen.add(digest(tmp_path / "x"))
    assert len(seen) == 4
