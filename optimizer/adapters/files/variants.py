"""Variants: a model's folder may hold its weights in full precision, in the variant ``fp16`` (``NAME.fp16.safetensors``), or both."""

from __future__ import annotations

from pathlib import Path

_HALF = ".fp16"


def is_fp16(file: Path) -> bool:
    """Returns whether a weight file or index belongs to the variant ``fp16``, by its name."""
    return _HALF in file.name


def weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors files of a model's folder, sorted; those of the variant ``fp16`` only if there are no others."""
    files = sorted(folder.glob("*.safetensors"))
    return [file for file in files if not is_fp16(file)] or files


def variant_of(folder: Path) -> str | None:
    """Returns ``fp16`` if a folder contains only weights of that variant, else None: the argument of ``from_pretrained``."""
    files = weight_files(folder)
    return "fp16" if files and is_fp16(files[0]) else None


def index_files(folder: Path) -> list[Path]:
    """Returns the indices of the shards among the weight files, of the variant that ``weight_files`` returns, sorted."""
    half = variant_of(folder) == "fp16"
    return [file for file in sorted(folder.glob("*.safetensors.index*.json")) if is_fp16(file) == half]
