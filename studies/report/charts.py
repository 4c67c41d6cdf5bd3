"""The report's charts: convert plain numbers to SVG drawings.

A *tone* is the meaning of a mark and its colour class on the page: ``best``, ``naive``, ``stack``, ``source`` (one
source alone), ``base``, ``recipe`` (another baseline) or ``trial`` (a proposed trial).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from studies.report.marks import LEFT, Point, axes, label_room, mark, point_labels, score_scale, value_axis
from studies.report.svg import FONT, Box, Scale, decimal, drawing, element, label, rounded_up, spread

_LINE = 24.0


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval; ``strong`` renders it in bold."""

    label: str
    tone: str
    value: float
    low: float
    high: float
    strong: bool = False


@dataclass(frozen=True)
class Bar:
    """One bar from 0 to ``value``; the label may be empty."""

    label: str
    tone: str
    value: float


@dataclass(frozen=True)
class BarGroup:
    """Bars under a heading; the heading may be empty."""

    heading: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Reference:
    """A horizontal line at a baseline's score."""

    label: str
    tone: str
    value: float


def interval_chart(rows: Sequence[Interval], width: float, axis: str) -> Markup:
    """Returns a chart with one dot and interval per row, on a common axis that includes 0."""
    left = label_room([r.label for r in rows], width) + 12
    low, high = min(0.0, *(r.low for r in rows)), max(r.high for r in rows)
    scale = Scale(low, rounded_up(low, max(high, low + 0.1)), left, width - 14)
    bottom = len(rows) * 30 + 6
    marks = [value_axis(scale, [(0, bottom)], axis, width)]
    for index, row in enumerate(rows):
        y = index * 30 + 18
        hint = f"{row.label}: {row.value:.3f}, interval {row.low:.3f} to {row.high:.3f}"
        name = label(row.label, left - 12, y + 4, anchor="end", class_="strong" if row.strong else "", room=left - 12)
        line = element("line", x1=scale(row.low), x2=scale(row.high), y1=float(y), y2=float(y), class_="interval")
        dot = element("circle", cx=scale(row.value), cy=float(y), r=5.5 if row.strong else 4.5, class_="dot")
        marks += [name, element("g", element("title", hint), line, dot, class_=f"tone-{row.tone}")]
    title = "Confidence intervals: " + "; ".join(f"{r.label} {r.value:.2f}" for r in rows)
    return drawing(width, bottom + 44, title, *marks)


def bar_chart(groups: Sequence[BarGroup], width: float, axis: str, *, reference: float | None = None, line: float = _LINE) -> Markup:
    """Returns a chart of horizontal bars in groups, each with its value at the end; a dashed vertical line marks ``reference``."""
    bars = [bar for group in groups for bar in group.bars]
    left = label_room([b.label for b in bars], width) + (10 if any(b.label for b in bars) else 0)
    values = [b.value for b in bars] + [reference or 0.0]
    low, high = min(0.0, *values), max(0.1, *values)
    scale = Scale(low, high, left + (40 if low < 0 else 0), width - 44)
    y, bands, marks = 0.0, [], []
    for group in groups:
        if group.heading:
            marks.append(label(group.heading, 0, y + 15, class_="strong halo", room=width))
            y += 24
        for bar in group.bars:
            marks += _bar(bar, scale, left, y, line, reference)
            y += line
        bands.append((y - line * len(group.bars) - 3, y + 3))
        y += 12 if group.heading else 0
    title = f"{axis}: " + "; ".join(" ".join(filter(None, (g.heading, b.label, f"{b.value:.2f}"))) for g in groups for b in g.bars)
    frame = value_axis(scale, bands, axis, width, reference)
    return drawing(width, y + 44, title, frame, *marks)


def history_chart(points: Sequence[Point], references: Sequence[Reference], width: float, height: float = 320) -> Markup:
    """Returns a chart of score over trial number: dots for trials, a line for the best so far, dashed baselines, crosses for failures."""
    names = [r.label for r in references]
    right = min(label_room(names, width) + 22, width * 0.3) if names else 14
    values = [p.y for p in points if p.y is not None] + [r.value for r in references]
    y_axis = score_scale(values, height - 64, 10)
    last = max((p.x for p in points), default=1)
    x_axis = Scale(0, max(last, 1), LEFT, width - right - 8)
    frame = axes(x_axis, y_axis, "trial", "score", integers=True)
    lines = _references(references, x_axis.end, y_axis, width)
    crosses = [mark(p, x_axis(p.x), y_axis.start + 9) for p in points if p.y is None]
    dots = [mark(p, x_axis(p.x), y_axis(p.y), clipped=p.y < y_axis.low) for p in points if p.y is not None]
    title = f"Score of {len(points)} trials, {len(crosses)} of them failed"
    return drawing(width, height, title, frame, *lines, _best_so_far(points, x_axis, y_axis), *crosses, *dots)


def scatter_chart(points: Sequence[Point], x_name: str, y_name: str, width: float, *, outline: bool = True) -> Markup:
    """Returns a scatter chart of two sources' preservation; the Pareto front is emphasized, and joined by a line if ``outline``."""
    shown = [p for p in points if p.y is not None]
    height = width * 0.86
    x_axis = score_scale([p.x for p in shown] + [1.0], LEFT, width - 12)
    y_axis = score_scale([p.y for p in shown if p.y is not None] + [1.0], height - 48, 10)
    marks = [axes(x_axis, y_axis, x_name, y_name)]
    if outline:
        marks.append(_stairs([p for p in shown if p.front], x_axis, y_axis))
    placed = [(p, x_axis(p.x), y_axis(p.y or 0.0)) for p in sorted(shown, key=lambda p: (bool(p.label), p.front))]
    marks += [mark(p, x, y, clipped=p.x < x_axis.low or (p.y or 0.0) < y_axis.low) for p, x, y in placed]
    marks += point_labels(placed, Box(x_axis.start, y_axis.end, x_axis.end, y_axis.start))
    return drawing(width, height, f"{y_name} over {x_name}, {len(shown)} trials", *marks)


def _bar(bar: Bar, scale: Scale, left: float, y: float, line: float, reference: float | None) -> list[Markup]:
    zero, end = scale(0.0), scale(bar.value)
    middle = y + line / 2
    thick = line * 0.62
    rectangle = element("rect", x=min(zero, end), y=middle - thick / 2, width=max(abs(end - zero), 1.0), height=thick, rx=2, class_="bar")
    crossed = reference is not None and 0 <= scale(reference) - end < 34
    at, anchor = (end - 6, "end") if bar.value < 0 else (scale(reference or 0) + 6 if crossed else end + 6, "start")
    value = label(decimal(bar.value, 2), at, middle + 4, anchor=anchor, class_="value halo")
    name = [label(bar.label, left - 10, middle + 4, anchor="end", room=left - 10)] if bar.label else []
    return [*name, element("g", rectangle, value, class_=f"tone-{bar.tone}")]


def _references(references: Sequence[Reference], end: float, y_axis: Scale, width: float) -> list[Markup]:
    places = [y_axis(r.value) for r in references]
    heights = spread(places, FONT + 3, y_axis.end + 6, y_axis.start - 2)
    marks = []
    for reference, y, moved in zip(references, places, heights, strict=True):
        line = element("path", d=f"M{LEFT:.0f} {y:.1f}H{end:.1f}", class_="reference")
        leader = element("path", d=f"M{end:.1f} {y:.1f}L{end + 14:.1f} {moved:.1f}", class_="leader")
        text = label(reference.label, end + 18, moved + 4, class_="toned", room=width - end - 20)
        hint = element("title", f"{reference.label}: {reference.value:.3f}")
        marks.append(element("g", hint, line, leader, text, class_=f"tone-{reference.tone}"))
    return marks


def _best_so_far(points: Sequence[Point], x_axis: Scale, y_axis: Scale) -> Markup:
    path, best = "", -math.inf
    for point in sorted(points, key=lambda p: p.x):
        if point.y is not None and point.feasible and point.y > best:
            best = point.y
            x, y = x_axis(point.x), y_axis(best)
            path += f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f} {y:.1f}"
    path += f"H{x_axis(max(p.x for p in points)):.1f}" if path else ""
    return element("path", d=path, class_="curve") if path else Markup("")


def _stairs(front: Sequence[Point], x_axis: Scale, y_axis: Scale) -> Markup:
    path = ""
    for point in sorted(front, key=lambda p: p.x):
        x, y = x_axis(point.x), y_axis(point.y or 0.0)
        path += f"V{y:.1f}H{x:.1f}" if path else f"M{x_axis.start:.1f} {y:.1f}H{x:.1f}"
    return element("path", d=path + f"V{y_axis.start:.1f}", class_="front") if path else Markup("")
