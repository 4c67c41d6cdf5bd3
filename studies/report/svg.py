"""SVG primitives for the charts: escaped elements, linear scales, round ticks, fitted text, labels without overlap.

Lengths are CSS pixels of the chart's own coordinate system, x to the right, y downwards. Colours are not set here: elements
have classes, and the page's style sheet defines their colours for light mode, dark mode and print.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

FONT = 12.0
"""Font size of the text in charts, in pixels."""


@dataclass(frozen=True)
class Scale:
    """A linear map from values in [low, high] to pixels in [start, end]; values outside are clamped to the nearer end."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Returns about ``count`` round values within the scale."""
        return ticks(self.low, self.high, count)


@dataclass(frozen=True)
class Box:
    """A rectangle from (left, top) to (right, bottom)."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Returns the area of the intersection with another box."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0) * max(height, 0)

    def outside(self, other: Box) -> float:
        """Returns the area of this box that ``other`` does not cover."""
        return (self.right - self.left) * (self.bottom - self.top) - self.overlap(other)


def element(name: str, *children: str | Markup, **attributes: object) -> Markup:
    """Returns an SVG element with escaped text and attribute values; ``class_`` becomes class, ``font_size`` font-size, None is omitted."""
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            shown = number(value) if isinstance(value, float) else value
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    inner = Markup("").join(children)
    return Markup(f"<{' '.join(parts)}>{inner}</{name}>")


def drawing(width: float, height: float, title: str, *children: Markup) -> Markup:
    """Returns the root SVG element, with a description for screen readers."""
    box = f"0 0 {number(width)} {number(height)}"
    return element("svg", *children, viewBox=box, width=width, height=height, role="img", aria_label=title)


def label(text: str, x: float, y: float, *, anchor: str = "start", class_: str = "", room: float = math.inf) -> Markup:
    """Returns text with its baseline at ``y``; cut to ``room`` pixels, with the whole text as its tooltip if it was cut."""
    shown = shorten(text, room, FONT * 1.1 if "strong" in class_ or "toned" in class_ else FONT)
    hint = element("title", text) if shown != text else Markup("")
    return element("text", hint, shown, x=x, y=y, text_anchor=anchor, class_=class_ or None)


def number(value: float) -> str:
    """Returns a coordinate as text with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def decimal(value: float, digits: int | None = None) -> str:
    """Returns a value as text with a true minus sign; up to six digits if ``digits`` is None; a dash for NaN."""
    if math.isnan(value):
        return "–"
    shown = f"{value:g}" if digits is None else f"{value:.{digits}f}"
    return shown.replace("-", "\N{MINUS SIGN}") if float(shown) else shown.lstrip("-")


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about ``count`` multiples of 1, 2, 2.5 or 5 · 10ⁿ in [low, high], ascending."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def rounded_up(low: float, high: float, count: int = 5) -> float:
    """Returns the smallest round value, by the tick step of [low, high], that is not below ``high``."""
    marks = ticks(low, high, count)
    step = marks[1] - marks[0] if len(marks) > 1 else high - low
    return round(math.ceil(high / step - 1e-9) * step, 10)


def text_width(text: str, size: float = FONT) -> float:
    """Returns the estimated width of a text in a system font; full-width letters count double, combining marks nothing."""
    return size * sum(_advance(letter) for letter in text)


def shorten(text: str, room: float, size: float = FONT) -> str:
    """Returns the text, or as much of its beginning as fits into ``room`` pixels together with an ellipsis."""
    if not text or text_width(text, size) <= room:
        return text
    kept, used = "", text_width("…", size)
    for letter in text:
        used += size * _advance(letter)
        if used > room:
            break
        kept += letter
    return kept.rstrip() + "…"


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves labels as little as needed so that neighbours are ``gap`` apart and all are in [low, high]; the order is kept.

    If they cannot all fit, the gap is reduced.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    step = min(gap, (high - low) / max(len(places) - 1, 1))
    moved = [0.0] * len(places)
    floor = low
    for index in order:
        moved[index] = floor = max(places[index], floor)
        floor += step
    ceiling = high
    for index in reversed(order):
        moved[index] = ceiling = min(moved[index], ceiling)
        ceiling -= step
    return moved


def _advance(letter: str) -> float:
    if unicodedata.combining(letter) or unicodedata.category(letter) in {"Cf", "Mn"}:
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.05
    return 0.76 if letter in "MWmw@%—" or letter.isupper() else 0.38 if letter in "iljtfrI.,:;|'!()[] " else 0.62
