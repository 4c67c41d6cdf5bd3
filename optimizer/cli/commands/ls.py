"""``optimize ls``: the LoRA files of a directory that go together."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from optimizer.cli.quiet import hush


def ls(
    directory: Path = Path("."),
    /,
    *,
    like: str | None = None,
    all_files: Annotated[bool, Parameter("--all")] = False,
    as_json: Annotated[bool, Parameter("--json")] = False,
    allow_unknown: bool = False,
    base: Path | None = None,
) -> int:
    """List the LoRA files of a directory that can be merged with each other.

    Args:
        directory: the directory; those inside it are not searched.
        like: list what can be merged with this file or demo:NAME; default: with the first file that can be read.
        all_files: list the others too, each with the reason.
        as_json: print JSON for machines.
        allow_unknown: leave out tensors that are not understood instead of the file.
        base: diffusers folder of the base model, which files of DoRA, (IA)³, OFT, BOFT and GLoRA need.
    """
    errors = Console(stderr=True, highlight=False)
    hush(errors)
    with errors.status("reading…") if errors.is_terminal else nullcontext():
        from optimizer.cli.tables.inspection import print_listing
        from optimizer.inspection.gather import Reading, summary
        from optimizer.inspection.listing import listing, listing_facts

        found = listing(directory, like, Reading.of(allow_unknown, base))
    if as_json:
        print(json.dumps(listing_facts(found, all_files), allow_nan=False))
    else:
        print_listing(found, all_files, Console(highlight=False))
    if not all_files and (told := summary(found.hidden(False))):
        errors.print(told, soft_wrap=True, markup=False)
    return 0
