"""Axes, marks and labels shared by the report's charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from studies.report.svg import Box, Scale, decimal, element, label, rounded_up, shorten, text_width

LEFT = 58.0
"""Width reserved for the name and the values of a vertical axis, in pixels."""

FLOOR = -0.25
"""Lower limit of the charts' scales; lower values are drawn at the edge as a triangle, so that outliers do not compress the rest."""

_BOLD = 1.1  # width of bold point labels relative to plain text


@dataclass(frozen=True)
class Point:
    """Coordinates and appearance of one trial; ``number`` links it to its row in the table.

    ``y`` is None for a failed trial; ``front`` marks a member of the Pareto front; ``feasible`` is False if it misses a constraint.
    """

    number: int
    x: float
    y: float | None
    tone: str = "trial"
    label: str = ""
    hint: str = ""
    front: bool = False
    feasible: bool = True


def score_scale(values: Sequence[float], start: float, end: float) -> Scale:
    """Returns a scale from 0, or from at least ``FLOOR`` if there are negative values, to a round value not below the maximum."""
    low = max(min(0.0, *values), FLOOR) if values else 0.0
    high = max(values, default=1.0)
    return Scale(low, rounded_up(low, max(high, low + 0.1)), start, end)


def label_room(labels: Sequence[str], width: float) -> float:
    """Returns the width of the column that the labels need, at most 36 % of the chart."""
    return min(max((text_width(text) for text in labels), default=0.0) + 1, width * 0.36)


def value_axis(scale: Scale, bands: Sequence[tuple[float, float]], axis: str, width: float, reference: float | None = None) -> Markup:
    """Returns vertical grid lines within the bands (top, bottom), tick values, the axis's name, and a dashed line at ``reference``."""
    bottom = max((end for _, end in bands), default=0.0)
    lines = [(scale(tick), "zero" if tick == 0 else "grid") for tick in scale.ticks(5 if width > 500 else 4)]
    lines += [(scale(reference), "reference")] if reference is not None else []
    marks = [element("line", x1=x, x2=x, y1=float(a), y2=float(b), class_=kind) for x, kind in lines for a, b in bands]
    for tick in scale.ticks(5 if width > 500 else 4):
        marks.append(label(decimal(tick), scale(tick), bottom + 16, anchor="middle", class_="tick"))
    half = min(text_width(axis) / 2 + 2, width / 2)
    centre = min(max((scale.start + scale.end) / 2, half), width - half)
    marks.append(label(axis, centre, bottom + 36, anchor="middle", class_="axis", room=width - 4))
    return element("g", *marks)


def axes(x_axis: Scale, y_axis: Scale, x_name: str, y_name: str, *, integers: bool = False) -> Markup:
    """Returns grid lines, values and names of both axes; with ``integers`` the x axis has integer ticks and space for crosses above it."""
    marks = []
    for tick in y_axis.ticks():
        y = y_axis(tick)
        marks.append(element("line", x1=x_axis.start, x2=x_axis.end, y1=y, y2=y, class_="zero" if tick == 0 else "grid"))
        marks.append(label(decimal(tick), x_axis.start - 8, y + 4, anchor="end", class_="tick"))
    foot = y_axis.start + (18 if integers else 0)
    for tick in x_axis.ticks(5):
        if integers and tick != int(tick):
            continue
        x = x_axis(tick)
        if not integers:
            marks.append(element("line", x1=x, x2=x, y1=y_axis.start, y2=y_axis.end, class_="zero" if tick == 0 else "grid"))
        marks.append(label(decimal(tick), x, foot + 18, anchor="middle", class_="tick"))
    middle, centre = (x_axis.start + x_axis.end) / 2, (y_axis.start + y_axis.end) / 2
    marks.append(label(x_name, middle, foot + 38, anchor="middle", class_="axis", room=x_axis.end - x_axis.start))
    title = element("title", y_name)
    shown = shorten(y_name, abs(y_axis.end - y_axis.start))
    turned = element(
        "text", title, shown, x=0.0, y=0.0, transform=f"translate(11 {centre:.1f}) rotate(-90)", text_anchor="middle", class_="axis"
    )
    return element("g", *marks, turned)


def mark(point: Point, x: float, y: float, *, clipped: bool = False) -> Markup:
    """Returns the mark of a trial: cross if failed, triangle if below the scale, ring for the best, diamond for a baseline, else a dot.

    The mark of a trial that misses a constraint is hollow.
    """
    dot = "dot" if point.feasible else "dot infeasible"
    if point.y is None:
        shape = element("path", d=_cross(x, y), class_="cross")
    elif clipped:
        shape = element("path", d=f"M{x - 5:.1f} {y - 8:.1f}h10l-5 8z", class_=dot)
    elif point.tone == "best":
        shape = element("g", element("circle", cx=x, cy=y, r=8.0, class_="ring"), element("circle", cx=x, cy=y, r=4.5, class_="dot"))
    elif point.tone == "trial":
        shape = element("circle", cx=x, cy=y, r=4.5 if point.front else 3.5, class_=f"{dot} member" if point.front else dot)
    else:
        shape = element("path", d=_diamond(x, y), class_=dot)
    return element("g", element("title", point.hint), shape, class_=f"mark tone-{point.tone}", data_trial=point.number)


def point_labels(placed: Sequence[tuple[Point, float, float]], frame: Box) -> list[Markup]:
    """Returns labels of the named points, placed to cover few marks and no other label, inside the frame; crowded labels are omitted.

    The best and the baselines are placed before the default recipes, which are omitted first if space is short.
    """
    taken = [Box(x - 6, y - 6, x + 6, y + 6) for _, x, y in placed]
    texts: list[Box] = []
    marks = []
    for point, x, y in sorted(placed, key=lambda p: p[0].tone == "recipe"):
        if not point.label:
            continue
        text = shorten(point.label, (frame.right - frame.left) * 0.45)
        wide = _BOLD * text_width(text)
        spots = [(x + dx if dx >= 0 else x + dx - wide, y + dy) for dx in (10, -10) for dy in (4, -9, 17)]
        spots += [(x - wide / 2, y + dy) for dy in (-12, 22)]
        boxes = [Box(a, b - 10, a + wide, b + 3) for a, b in spots]
        costs = [sum(map(box.overlap, taken)) + 100 * sum(map(box.overlap, texts)) + 10 * box.outside(frame) for box in boxes]
        chosen = costs.index(min(costs))
        if costs[chosen] > wide * 4:  # a third of the label would be covered; the tooltip of the mark contains the name
            continue
        texts.append(boxes[chosen])
        hint = element("title", point.label)
        text_mark = element("text", hint, text, x=spots[chosen][0], y=spots[chosen][1], class_="toned halo")
        marks.append(element("g", text_mark, class_=f"tone-{point.tone}"))
    return marks


def swatch(shape: str, tone: str) -> Markup:
    """Returns a small mark for a legend: ``dot``, ``hollow``, ``ring``, ``diamond``, ``cross``, ``line``, ``dash`` or ``bar``."""
    shapes = {
        "dot": element("circle", cx=8.0, cy=6.0, r=4.0, class_="dot"),
        "hollow": element("circle", cx=8.0, cy=6.0, r=4.0, class_="dot infeasible"),
        "ring": element("circle", cx=8.0, cy=6.0, r=4.5, class_="ring"),
        "diamond": element("path", d=_diamond(8, 6), class_="dot"),
        "cross": element("path", d=_cross(8, 6), class_="cross"),
        "line": element("path", d="M1 6H15", class_="curve"),
        "dash": element("path", d="M0 6H16", class_="reference"),
        "bar": element("rect", x=2.0, y=1.0, width=12.0, height=10.0, class_="bar"),
    }
    return element("svg", element("g", shapes[shape], class_=f"tone-{tone}"), viewBox="0 0 16 12", width=16, height=12, aria_hidden="true")


def _diamond(x: float, y: float) -> str:
    return f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"


def _cross(x: float, y: float) -> str:
    return f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
