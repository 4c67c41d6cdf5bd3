"""The help text of ``optimize``: examples, columns that are aligned across panels, and the short help that stands for no arguments."""

from __future__ import annotations

from collections.abc import Iterable

from cyclopts.help import ColumnSpec, DefaultFormatter, DescriptionRenderer, NameRenderer
from rich.console import Console
from rich.table import Table

from optimizer.search.config import OPTIONS, option_of

SUMMARY = "Find the one merged LoRA that keeps what each of your LoRAs is good at."
EXAMPLES = (
    "optimize --sources style.safetensors hero.safetensors --base sdxl/ --budget 50",
    "optimize --sources demo:neon demo:octopus --budget 20",
)
USAGE = "Usage: optimize --sources FILE FILE... --base MODEL [OPTIONS]\n       optimize COMMAND ..."
NOTES = (
    "Every option can also stand in a YAML file (--config FILE.yaml) or in the environment (OPTIMIZE_BUDGET=50).\n"
    "A flag wins over the environment, which wins over the file. The same command, given again, resumes the study."
)
MERGE_SUMMARY = "Merge LoRAs once, without a search. Writes the file, its recipe (.yaml) and a model card (.md)."
MERGE_EXAMPLES = (
    "optimize merge --sources style.safetensors hero.safetensors --weights 0.7 0.6",
    "optimize merge --sources demo:octopus demo:owl --method distill",
    "optimize merge merged.safetensors --weights 0.8 0.5",
    "optimize merge study/ --method soup",
)
MERGE_USAGE = "Usage: optimize merge --sources FILE FILE... [OPTIONS]\n       optimize merge RECIPE [OPTIONS]"
MERGE_NOTES = (
    "What is not given comes from RECIPE, if there is one, else from the method.\n"
    "Every option can also stand in the environment (OPTIMIZE_OUT=merged/). A flag wins over the environment."
)
REQUIRED = ("sources", "base")
_NAMES = 20  # width of the column of names; --keep-images CHOICE is as long


def formatter() -> DefaultFormatter:
    """The formatter of the main help text, whose panels share the width of their first column."""
    names = ColumnSpec(renderer=NameRenderer(max_width=_NAMES), style="cyclopts.name", width=_NAMES)
    return DefaultFormatter(column_specs=(names, ColumnSpec(renderer=DescriptionRenderer(), overflow="fold")))


def examples(lines: Iterable[str]) -> str:
    """The examples, one a line, under their title."""
    return "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def print_short_help() -> None:
    """Print what a first run needs, and how to see the rest."""
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name in REQUIRED:
        placeholder = option_of(OPTIONS[name]).value
        table.add_row(f"  --{name} {placeholder}", OPTIONS[name].description)
    console.print(f"{SUMMARY}\n\n{examples(EXAMPLES)}\n\nRequired:", markup=False, soft_wrap=True)
    console.print(table)
    console.print()
    console.print("See all options and commands: optimize --help", markup=False)
