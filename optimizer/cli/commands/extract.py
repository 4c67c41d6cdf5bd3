"""``optimize extract``: a LoRA from a pair of full models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console

from optimizer.cli.progress import progress_bar
from optimizer.cli.quiet import hush
from optimizer.search.config import Dtype


def extract(
    model: str,
    base: str,
    /,
    *,
    rank: int = 32,
    rank_energy: float | None = None,
    dialect: Literal["kohya", "diffusers", "comfyui"] = "kohya",
    dtype: Dtype = "fp16",
    out: Path | None = None,
    force: bool = False,
) -> int:
    """Extract a LoRA from a trained model: the closest one of a rank to model − base.

    Args:
        model: diffusers folder or .safetensors file of the trained model, or its name in the hub's cache.
        base: diffusers folder, .safetensors file or hub name of the model that it was trained from.
        rank: greatest rank of a module.
        rank_energy: keep this share of each module's energy, such as 0.95, at the least rank.
        dialect: key names of the file.
        dtype: number format of the file.
        out: file to write; named after the model where not given.
        force: write over an existing file.
    """
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    from optimizer.cli.tables.extraction import print_extraction
    from optimizer.jobs.extract import ExtractRequest, extract_lora

    request = ExtractRequest(model=model, base=base, rank=rank, rank_energy=rank_energy, dialect=dialect, dtype=dtype, out=out, force=force)
    with progress_bar("extracting…", errors) as tick:
        found = extract_lora(request, tick=tick)
    print_extraction(found, Console(highlight=False))
    return 0
