"""Figures: selects the charts for a study, with captions and legends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from markupsafe import Markup

from studies.frames import block_weights, source_weights
from studies.front import pareto_front
from studies.records import Evaluation, TrialRecord
from studies.report.charts import (
    Bar,
    BarGroup,
    Interval,
    Reference,
    bar_chart,
    history_chart,
    interval_chart,
    scatter_chart,
)
from studies.report.marks import FLOOR, Point, swatch
from studies.report.svg import decimal
from studies.summary import ALONE, StudySummary, Verdict

WIDE, NARROW = 680.0, 350.0
"""Widths for large and small screens; each large chart is drawn in both and the page shows the one that fits, with constant text size."""

_HOLLOW = "misses what was asked for"

Legend = tuple[tuple[Markup, str], ...]


@dataclass(frozen=True)
class Figure:
    """A chart ready for the page.

    Attributes:
        chart: drawing, in two widths if needed.
        caption: one or two sentences; may be empty.
        legend: marks and their meanings.
        heading: heading of a figure among several; may be empty.
    """

    chart: Markup
    caption: str = ""
    legend: Legend = ()
    heading: str = ""


def tone_of(label: str) -> str:
    """Returns the tone of a label: ``naive``, ``stack``, ``base``, ``best``, ``source``, else ``recipe``; ``trial`` if empty."""
    if label in {"naive", "stack", "base", "best"}:
        return label
    return "source" if label.endswith(ALONE) else "recipe" if label else "trial"


def both_widths(draw: Callable[[float], Markup], wide: float = WIDE) -> Markup:
    """Returns a chart in two widths, of which the page shows the one that fits.

    Args:
        draw: draws the chart in a width.
        wide: width on large screens, in pixels.
    """
    return Markup('<div class="chart wide">{}</div><div class="chart narrow">{}</div>').format(draw(wide), draw(NARROW))


def verdict_figure(summary: StudySummary) -> Figure | None:
    """Returns a figure of the confirmed scores with their intervals; None without a verdict."""
    verdict = summary.verdict
    if verdict is None:
        return None
    rows = [
        Interval(name, row_tone(name, verdict), c.weakest, c.ci_low, c.ci_high, name == verdict.winner)
        for name, c in verdict.rows.items()
        if all(map(math.isfinite, (c.weakest, c.ci_low, c.ci_high)))
    ]
    axis = f"kept of the weakest source, {100 * verdict.confidence:g} % interval"
    return Figure(both_widths(lambda width: interval_chart(rows, width, axis), 560)) if rows else None


def row_tone(label: str, verdict: Verdict) -> str:
    """Returns the tone of a verdict's row: a winner that is no baseline is the best."""
    tone = tone_of(label)
    return "best" if label == verdict.winner and tone in {"recipe", "trial"} else tone


def preservation_figure(summary: StudySummary) -> Figure | None:
    """Returns a figure of each source's preservation in the best merge, the naive merge and the stack; None if none was scored."""
    confirmed = _confirmed_preservation(summary)
    found = confirmed or _searched_preservation(summary)
    groups = [
        BarGroup(name, tuple(Bar(label, tone, scores[name]) for label, tone, scores in found if math.isfinite(scores.get(name, math.nan))))
        for name in summary.names
    ]
    groups = [group for group in groups if group.bars]
    if not groups:
        return None
    where = "on the confirmation prompts" if confirmed else "on the search's prompts"
    caption = f"Measured {where}. 0 is {summary.zero}, 1 is the source on its own: the dashed line."
    return Figure(both_widths(lambda width: bar_chart(groups, width, "preservation", reference=1.0)), caption)


def history_figure(summary: StudySummary) -> Figure | None:
    """Returns a figure of score over trials; None before the first trial."""
    if not summary.trials:
        return None
    points = [_history_point(record, summary.best_number) for record in sorted(summary.trials, key=lambda r: r.number)]
    lines = [
        Reference(r.label, tone_of(r.label), r.evaluation.score)
        for r in summary.trials
        if r.evaluation and tone_of(r.label) in {"naive", "stack", "source"} and math.isfinite(r.evaluation.score)
    ]
    caption = _clipped([p.y for p in points if p.y is not None])
    return Figure(both_widths(lambda width: history_chart(points, lines, width)), caption, _history_legend(points, bool(lines)))


def trade_off_figures(summary: StudySummary) -> list[Figure]:
    """Returns one scatter chart for every pair of sources; the Pareto front is that of all sources together, among feasible trials."""
    names = [name for name in summary.names if any(math.isfinite(_preservation(r, name)) for r in summary.trials)]
    records = [r for r in summary.trials if r.evaluation and _scored(r.evaluation, names)]
    if len(names) < 2 or not records:
        return []
    kept = [[_preservation(r, name) if _feasible(r) else -math.inf for name in names] for r in records]
    front = [member and _feasible(r) for r, member in zip(records, pareto_front(kept), strict=True)]
    pairs = list(combinations(names, 2))
    return [_trade_off(summary, records, front, pair, single=len(pairs) == 1) for pair in pairs]


def weight_figures(summary: StudySummary) -> list[Figure]:
    """Returns figures of the best recipe's weights, and of the block weights of each source that has some."""
    best = summary.best
    if best is None or best.evaluation is None:
        return []
    return list(_weight_figures(best.evaluation, summary.names))


def _weight_figures(found: Evaluation, names: Sequence[str]) -> Iterator[Figure]:
    weights = source_weights(found, names)
    if weights:
        bars = BarGroup("", tuple(Bar(name, "best", weight) for name, weight in weights.items()))
        yield Figure(_one(bar_chart([bars], NARROW, "weight", reference=1.0)), heading="Weights")
    for name, blocks in block_weights(found, names).items():
        if blocks:
            bars = BarGroup("", tuple(Bar(block, "best", weight) for block, weight in blocks.items()))
            yield Figure(_one(bar_chart([bars], NARROW, "block weight", reference=1.0, line=19)), heading=f"Blocks of {name}")


def _confirmed_preservation(summary: StudySummary) -> list[tuple[str, str, Mapping[str, float]]]:
    verdict = summary.verdict
    if verdict is None or not verdict.rows[verdict.winner].sources:
        return []
    wanted = [verdict.winner, *(n for n in ("naive", "stack") if n != verdict.winner and n in verdict.rows)]
    return [(name, row_tone(name, verdict), verdict.rows[name].sources) for name in wanted]


def _searched_preservation(summary: StudySummary) -> list[tuple[str, str, Mapping[str, float]]]:
    best = summary.best
    found = [(best.label or "best", "best", best)] if best else []
    found += [(r.label, tone_of(r.label), r) for name in ("naive", "stack") for r in summary.trials if r.label == name and r != best]
    return [(n, tone, {s: score.preservation for s, score in r.evaluation.sources.items()}) for n, tone, r in found if r.evaluation]


def _history_point(record: TrialRecord, best: int | None) -> Point:
    name = f"trial {record.number}" + (f", {record.label}" if record.label else "")
    found = record.evaluation
    if found is None or not math.isfinite(found.score):
        reason = record.error or ("the score is not a number" if found else "")
        return Point(record.number, record.number, None, hint=f"{name} failed: {reason[:300]}")
    tone = "best" if record.number == best else tone_of(record.label)
    sure = f" (95 % interval {found.interval[0]:.2f} to {found.interval[1]:.2f})" if found.interval else ""
    hint = ", ".join([f"{name}: score {found.score:.3f}{sure}", *found.misses])
    return Point(record.number, record.number, found.score, tone, record.label, hint, feasible=found.feasible)


def _history_legend(points: Sequence[Point], lines: bool) -> Legend:
    marks = {"trial": ("dot", "proposed"), "best": ("ring", "best"), "recipe": ("diamond", "baseline")}
    tones = {("recipe" if p.tone in {"naive", "stack", "source"} else p.tone) for p in points if p.y is not None}
    entries = [(swatch(shape, tone), text) for tone, (shape, text) in marks.items() if tone in tones]
    entries.append((swatch("line", "best"), "best so far"))
    entries += [(swatch("dash", "source"), "baseline's score")] if lines else []
    entries += [(swatch("hollow", "trial"), _HOLLOW)] if any(not p.feasible for p in points) else []
    entries += [(swatch("cross", "trial"), "failed")] if any(p.y is None for p in points) else []
    return tuple(entries)


def _trade_off(summary: StudySummary, records: Sequence[TrialRecord], front: Sequence[bool], pair: tuple[str, str], single: bool) -> Figure:
    points = [_trade_off_point(r, summary.best_number, pair, member) for r, member in zip(records, front, strict=True)]
    values = [value for p in points for value in (p.x, p.y or 0.0)]
    x_name, y_name = (f"preservation of {name}" for name in pair)
    if single:
        chart = both_widths(lambda width: scatter_chart(points, x_name, y_name, width), 480)
        caption = "Each mark is a trial; right and up is better. No trial beats those on the line in both sources at once."
        hollow = "" if all(p.feasible for p in points) else f"What is hollow {_HOLLOW}."
        caption = " ".join(filter(None, (caption, hollow, _clipped(values))))
    else:
        chart = _one(scatter_chart(points, x_name, y_name, NARROW, outline=False))
        caption = _clipped(values)
    return Figure(chart, caption, heading="" if single else f"{pair[0]} and {pair[1]}")


def _clipped(values: Sequence[float]) -> str:
    below = any(value < FLOOR for value in values)
    return f"A triangle at the edge stands for a value below {decimal(FLOOR)}." if below else ""


def _trade_off_point(record: TrialRecord, best: int | None, pair: tuple[str, str], front: bool) -> Point:
    x, y = (_preservation(record, name) for name in pair)
    hint = f"trial {record.number}" + (f", {record.label}" if record.label else "")
    hint += f": {pair[0]} {x:.3f}, {pair[1]} {y:.3f}"
    tone, label = ("best", record.label or "best") if record.number == best else (tone_of(record.label), record.label)
    return Point(record.number, x, y, tone, label, hint, front, _feasible(record))


def _feasible(record: TrialRecord) -> bool:
    return record.evaluation is not None and record.evaluation.feasible


def _preservation(record: TrialRecord, name: str) -> float:
    return record.evaluation.sources[name].preservation if record.evaluation and name in record.evaluation.sources else math.nan


def _scored(found: Evaluation, names: Sequence[str]) -> bool:
    return all(name in found.sources and math.isfinite(found.sources[name].preservation) for name in names)


def _one(chart: Markup) -> Markup:
    return Markup('<div class="chart small">{}</div>').format(chart)
