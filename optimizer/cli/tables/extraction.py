"""What ``optimize extract`` prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from optimizer.jobs.extract import ExtractedFile

_LISTED = 5


def print_extraction(found: ExtractedFile, console: Console) -> None:
    """What the file keeps of each part of the pipeline, what it cannot hold, and where it is."""
    table = Table("part", "modules", "energy kept", "error")
    for part, kept in found.extraction.parts.items():
        share = f"{100 * kept.kept / kept.energy:.1f} %" if kept.energy else "–"
        table.add_row(part, str(kept.modules), share, f"{kept.error:.3f}" if kept.energy else "–")
    console.print(table)
    if beyond := found.extraction.beyond:
        largest = sorted(beyond, key=lambda name: -beyond[name])[:_LISTED]
        more = f" and {len(beyond) - _LISTED} more" if len(beyond) > _LISTED else ""
        count = "1 tensor" if len(beyond) == 1 else f"{len(beyond)} tensors"
        line = f"not in the file: {count} changed that no LoRA holds, most of all {', '.join(largest)}{more}"
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"LoRA    {found.path} ({found.path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True, markup=False)
