"""Where a winner is written: over itself, and never over another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from optimizer import Recipe, load_adapter, merge
from optimizer.export import ExportMetadata, export_adapter
from optimizer.search.results.export import _place
from tests.studio import Studio

NAME = "alba-bruno_ties_1-1_v1.safetensors"


def recipe(density: float) -> Recipe:
    return Recipe(method="ties", weights=(1.0, 1.0), density=density, rank=4)


@pytest.fixture
def folder(studio: Studio, tmp_path: Path) -> Path:
    """Two winners of one name that differ in their density."""
    sources = [load_adapter(path) for path in studio.sources[:2]]
    for name, density in ((NAME, 0.4), (NAME.replace("v1", "v2"), 0.6)):
        merged = merge(sources, recipe(density))
        export_adapter(merged, tmp_path / name, dtype=torch.float16, metadata=ExportMetadata("x", recipe=recipe(density).data()))
    (tmp_path / "a-torn.safetensors").write_bytes(b"\1\0\0\0")
    return tmp_path


@pytest.mark.parametrize(("density", "version"), [(0.4, "v1"), (0.6, "v2"), (0.7, "v3")])
def test_a_winner_finds_its_own_file_or_a_new_name(folder: Path, density: float, version: str) -> None:
    assert _place(folder, NAME, recipe(density)) == folder / NAME.replace("v1", version)
