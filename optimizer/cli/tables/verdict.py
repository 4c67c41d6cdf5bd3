"""What a run prints when it ends: the confirmed scores, and where its files are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from optimizer.search.labels import COMPOSITION
from studies import ConfirmedScore, StudySummary, Verdict
from studies.records import KEEPS, told_numbers

_UNSAVED = COMPOSITION.removeprefix("composition")


def print_verdict(summary: StudySummary, directory: Path, best: Path | None, console: Console) -> None:
    """The confirmed scores and the finding, then the exported file, the report, and how to resume."""
    if summary.verdict:
        console.print(_scores(summary, summary.verdict))
        if any(label.endswith(_UNSAVED) for label in summary.verdict.rows):
            console.print("composition: what a merge should draw; no file can hold it", style="dim", soft_wrap=True)
        if summary.metrics:
            _print_metrics(summary, summary.verdict, console)
        if any(row.missed for row in summary.verdict.rows.values()):
            console.print("✗: misses the constraint, and is not exported", style="dim", soft_wrap=True)
        if summary.priorities:
            text = f"priorities in the score: {told_numbers(summary.priorities)}"
            console.print(text, style="dim", soft_wrap=True, markup=False)
        for text in _drawn_with(summary):
            console.print(text, style="dim", soft_wrap=True, markup=False)
        for line in (summary.verdict.sentence, *summary.verdict.remarks):
            console.print(line, soft_wrap=True, markup=False)
    if summary.front:
        _print_front(summary, console)
    if best:
        console.print(f"{'model ' if summary.kind == 'model' else 'LoRA  '}  {best}", soft_wrap=True, markup=False)
    console.print(f"report  {directory / 'report.html'}", soft_wrap=True, markup=False)
    if summary.resume_command:
        console.print(f"resume  {summary.resume_command}", soft_wrap=True, markup=False)


def _drawn_with(summary: StudySummary) -> Iterator[str]:
    """Yields what the pictures were drawn with besides the base model."""
    if summary.eval_base:
        yield f"drawn by {summary.eval_base}"
    if summary.accelerators:
        yield f"judged with {summary.beside} beside every model; the exported file does not hold it: load it beside"


def _scores(summary: StudySummary, verdict: Verdict) -> Table:
    """The confirmed scores, the weakest source's with its interval."""
    discounts = verdict.discounts
    sources = [f"{name} >= {summary.targets[name]:g}" if name in summary.targets else name for name in summary.names]
    table = _table("model", f"weakest ({verdict.confidence:.0%} CI)", numbers=(*sources, "artifacts", *discounts))
    for label, row in verdict.rows.items():
        shown = f"{label} ◂" if label == verdict.winner else label.removesuffix(_UNSAVED)
        each = [_share(row, name) for name in summary.names]
        further = [f"{row.metrics[name]:.2f}" if name in row.metrics else "–" for name in discounts.values()]
        damage = "–" if row.artifacts is None else f"{row.artifacts:.2f}"
        table.add_row(shown, f"{row.weakest:.2f} ({row.ci_low:.2f}–{row.ci_high:.2f})", *each, damage, *further)
    return table


def _share(row: ConfirmedScore, name: str) -> str:
    """Returns what a model keeps of a source, marked if it misses its target; a dash for a source that cannot be measured."""
    share = row.sources[name]
    return f"{share:.2f}{' ✗' if f'{KEEPS}{name}' in row.missed else ''}" if math.isfinite(share) else "–"


def _print_front(summary: StudySummary, console: Console) -> None:
    """The members of the Pareto front, with their values on the search's prompts, and a command that exports one of them."""
    records = {record.number: record for record in summary.trials}
    table = _table("trial", numbers=(*summary.names, "artifacts", "score"))
    for member in summary.front:
        record = records[member.number]
        assert record.evaluation is not None
        shares = (record.evaluation.sources[name].preservation for name in summary.names)
        kept = (f"{share:.2f}" if math.isfinite(share) else "–" for share in shares)
        name = f"{member.number}" + (f" ({record.label})" if record.label else "")
        table.add_row(Text(name), *kept, f"{record.evaluation.artifacts:.2f}", f"{record.evaluation.score:.3f}")
    console.print(table)
    text = "no other merge is better on one axis without being worse on another, on the search's prompts; each can be exported:"
    console.print(text, style="dim", soft_wrap=True)
    shown = next((member for member in summary.front if member.number != summary.best_number), summary.front[0])
    console.print(f"front   {shown.command}", soft_wrap=True, markup=False)


def _print_metrics(summary: StudySummary, verdict: Verdict, console: Console) -> None:
    """The metrics of the user in a table of their own, each with its rule; values that miss a constraint are marked."""
    table = _table("model", numbers=[f"{name} {rule}".rstrip() for name, rule in summary.metrics.items()])
    for label, row in verdict.rows.items():
        table.add_row(label.removesuffix(_UNSAVED), *(_value(row, name) for name in summary.metrics))
    console.print(table)


def _value(row: ConfirmedScore, name: str) -> str:
    value = row.metrics.get(f"{name}:value")
    return "–" if value is None else f"{value:.4g}{' ✗' if name in row.missed else ''}"


def _table(*words: str, numbers: Sequence[str]) -> Table:
    """A table without frames, narrow enough for a terminal of 80 columns: words to the left, then numbers to the right."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in words:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(Text(name), justify="right", overflow="fold")  # a long heading takes two lines before it is cut
    return table
