"""``optimize inspect``: what is in LoRA files, and how they go together."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from optimizer.cli.quiet import hush

if TYPE_CHECKING:
    from optimizer.inspection.facts import Inspection


def inspect(
    files: tuple[str, ...],
    /,
    *,
    as_json: Annotated[bool, Parameter("--json")] = False,
    allow_unknown: bool = False,
    base: Path | None = None,
) -> int:
    """Show what LoRA files hold, and how well they go together.

    Args:
        files: LoRA files, demo:NAME, or directories, which stand for those of their files that fit the first one.
        as_json: print JSON for machines.
        allow_unknown: leave out tensors that are not understood, and name them, instead of refusing the file.
        base: diffusers folder of the base model, which files of DoRA, (IA)³, OFT, BOFT and GLoRA need.
    """
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    with errors.status("reading and measuring…") if errors.is_terminal else nullcontext():
        from optimizer.cli.tables.inspection import print_inspection
        from optimizer.inspection.facts import examine, inspection_facts
        from optimizer.inspection.gather import Reading, gather

        found = examine(gather(files, Reading.of(allow_unknown, base)))
    _warn(found, errors)
    if as_json:
        print(json.dumps(inspection_facts(found), allow_nan=False))
    else:
        print_inspection(found, Console(highlight=False))
    return 0


def _warn(found: Inspection, errors: Console) -> None:
    """Name on stderr what was left out: tensors, and files of folders."""
    from optimizer.inspection.facts import first_unknown
    from optimizer.inspection.gather import summary

    for item in found.gathered.found:
        if number := len(item.adapter.coverage.unknown):
            listed = [f"{tensor} ({why})" for tensor, why in first_unknown(item.adapter).items()]
            more = f"; and {number - len(listed)} more" if number > len(listed) else ""
            _say(f"warning: {item.adapter.name}: {number} tensors are left out: {'; '.join(listed)}{more}", errors)
    if told := summary(found.gathered.left_out):
        _say(told, errors)


def _say(text: str, errors: Console) -> None:
    errors.print(text, soft_wrap=True, markup=False)
