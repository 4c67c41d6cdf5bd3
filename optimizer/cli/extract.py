"""``optimize extract``: a LoRA from a pair of full models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from optimizer.cli.quiet import hush
from optimizer.errors import UsageError
from optimizer.search.config import Dtype

_LISTED = 5


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
        base: the same of the model that it was trained from.
        rank: greatest rank of a module.
        rank_energy: keep this share of each module's energy, such as 0.95, at the least rank.
        dialect: key names of the file.
        dtype: number format of the file.
        out: file to write; named after the model where not given.
        force: write over an existing file.
    """
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    from optimizer.adapters import clean_name
    from optimizer.checkpoints.open import open_model
    from optimizer.export import ExportMetadata, export_adapter, next_free, verify_export
    from optimizer.merging import DTYPES
    from optimizer.merging.models.extract import extract as extracted

    _check(rank, rank_energy)
    trained, began = open_model(model), open_model(base)
    path = _path(out, f"{clean_name(trained.name)}_rank{rank}.safetensors")
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("extracting…")
        found = extracted(
            trained, began, rank=rank, energy=rank_energy, tick=lambda done, total: progress.update(bar, completed=done, total=total)
        )
    path = path if force else next_free(path)
    about = ExportMetadata(title=found.adapter.name, description=f"{trained.name} minus {began.name}, at most rank {rank}", tags=("lora",))
    export_adapter(found.adapter, path, dialect=dialect, dtype=DTYPES[dtype], metadata=about)
    verify_export(path, found.adapter)
    table = Table("part", "modules", "energy kept", "error")
    for part, kept in found.parts.items():
        share = f"{100 * kept.kept / kept.energy:.1f} %" if kept.energy else "–"
        table.add_row(part, str(kept.modules), share, f"{kept.error:.3f}" if kept.energy else "–")
    console = Console(highlight=False)
    console.print(table)
    if found.beyond:
        largest = sorted(found.beyond, key=lambda name: -found.beyond[name])[:_LISTED]
        more = f" and {len(found.beyond) - _LISTED} more" if len(found.beyond) > _LISTED else ""
        count = "1 tensor" if len(found.beyond) == 1 else f"{len(found.beyond)} tensors"
        line = f"not in the file: {count} changed that no LoRA holds, most of all {', '.join(largest)}{more}"
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"LoRA    {path} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True, markup=False)
    return 0


def _check(rank: int, rank_energy: float | None) -> None:
    if rank < 1:
        raise UsageError(f"the rank is {rank}", where="--rank", remedy="give a number, 1 or more")
    if rank_energy is not None and not 0 < rank_energy <= 1:
        raise UsageError(f"got {rank_energy:g}", where="--rank-energy", remedy="give a share, such as 0.95")


def _path(out: Path | None, name: str) -> Path:
    if out is None or out.is_dir():
        return (out or Path()) / name
    if out.suffix != ".safetensors" or not out.parent.is_dir():
        remedy = "name a file that ends in .safetensors, in a directory that exists"
        raise UsageError("is neither such a file nor a directory", where=f"--out {out}", remedy=remedy)
    return out
