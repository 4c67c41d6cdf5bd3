"""What a run prints when it ends: the confirmed scores, and where its files are."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from optimizer.search.labels import COMPOSITION
from studies import ConfirmedScore, StudySummary, Verdict

_UNSAVED = COMPOSITION.removeprefix("composition")


def print_verdict(summary: StudySummary, directory: Path, best: Path | None, console: Console) -> None:
    """The confirmed scores and the finding, then the exported file, the report, and how to resume."""
    if summary.verdict:
        discounts = summary.verdict.discounts
        table = Table("model", "weakest source", "95 % interval", *summary.names, "artifacts", *discounts)
        for label, row in summary.verdict.rows.items():
            shown = f"{label} ◂" if label == summary.verdict.winner else label.removesuffix(_UNSAVED)
            each = [f"{row.sources[name]:.2f}" for name in summary.names]
            further = [f"{row.metrics[name]:.2f}" if name in row.metrics else "–" for name in discounts.values()]
            damage = "–" if row.artifacts is None else f"{row.artifacts:.2f}"
            table.add_row(shown, f"{row.weakest:.2f}", f"{row.ci_low:.2f} – {row.ci_high:.2f}", *each, damage, *further)
        console.print(table)
        if any(label.endswith(_UNSAVED) for label in summary.verdict.rows):
            console.print("composition: what a merge should draw; no file can hold it", style="dim", soft_wrap=True)
        if summary.metrics:
            _print_metrics(summary, summary.verdict, console)
        for line in (summary.verdict.sentence, *summary.verdict.remarks):
            console.print(line, soft_wrap=True, markup=False)
    if best:
        console.print(f"{'model ' if summary.kind == 'model' else 'LoRA  '}  {best}", soft_wrap=True, markup=False)
    console.print(f"report  {directory / 'report.html'}", soft_wrap=True, markup=False)
    if summary.resume_command:
        console.print(f"resume  {summary.resume_command}", soft_wrap=True, markup=False)


def _print_metrics(summary: StudySummary, verdict: Verdict, console: Console) -> None:
    """The metrics of the user in a table of their own, each with its rule; values that miss a constraint are marked."""
    table = Table("model", *(Column(Text(f"{name} {rule}".rstrip())) for name, rule in summary.metrics.items()))
    for label, row in verdict.rows.items():
        table.add_row(label.removesuffix(_UNSAVED), *(_value(row, name) for name in summary.metrics))
    console.print(table)
    if any(row.missed for row in verdict.rows.values()):
        console.print("✗: misses the constraint, and is not exported", style="dim", soft_wrap=True)


def _value(row: ConfirmedScore, name: str) -> str:
    value = row.metrics.get(f"{name}:value")
    return "–" if value is None else f"{value:.4g}{' ✗' if name in row.missed else ''}"
