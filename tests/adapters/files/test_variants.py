"""Variants: which files of a model's folder hold its weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from optimizer.adapters.files.variants import index_files, variant_of, weight_files

FULL, HALF = "model.safetensors", "model.fp16.safetensors"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json")
HALF_SHARDS = ("model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors", "model.safetensors.index.fp16.json")


@pytest.mark.parametrize(
    ("held", "weights", "variant", "indices"),
    [
        ((), [], None, []),
        ((FULL,), [FULL], None, []),
        ((HALF,), [HALF], "fp16", []),
        ((FULL, HALF), [FULL], None, []),
        (SHARDS, list(SHARDS[:2]), None, [SHARDS[2]]),
        (HALF_SHARDS, list(HALF_SHARDS[:2]), "fp16", [HALF_SHARDS[2]]),
        ((*SHARDS, *HALF_SHARDS), list(SHARDS[:2]), None, [SHARDS[2]]),
    ],
)
def test_full_precision_first(tmp_path: Path, held: tuple[str, ...], weights: list[str], variant: str | None, indices: list[str]) -> None:
    for name in (*held, "config.json", "model.bin.index.json"):
        (tmp_path / name).touch()
    assert [file.name for file in weight_files(tmp_path)] == weights
    assert variant_of(tmp_path) == variant
    assert [file.name for file in index_files(tmp_path)] == indices
