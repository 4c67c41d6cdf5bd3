"""Charts: valid SVG, nothing outside the drawing, geometry that matches the numbers."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from studies.front import pareto_front
from studies.report.charts import Bar, BarGroup, Interval, Reference, bar_chart, history_chart, interval_chart, scatter_chart
from studies.report.marks import FLOOR, Point, score_scale, swatch
from studies.report.svg import Scale, decimal, element, label, rounded_up, shorten, spread, text_width, ticks
from tests.studies.samples import HOSTILE, LONG

VALUES = st.floats(-3, 3)
WIDTHS = st.sampled_from([350.0, 680.0])
LABELS = st.sampled_from(["", "naive", "hero alone", HOSTILE, LONG])
TONES = st.sampled_from(["best", "naive", "trial", "recipe"])


def parsed(chart: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(chart)


def marks(chart: Markup, name: str, class_: str) -> list[ElementTree.Element]:
    return [e for e in parsed(chart).iter(name) if class_ in (e.get("class") or "").split()]


def assert_inside(chart: Markup) -> None:
    """No coordinate of the drawing lies outside its frame (labels of rotated axes aside)."""
    root = parsed(chart)
    width, height = float(root.get("width") or 0), float(root.get("height") or 0)
    for item in root.iter():
        if item.get("transform"):
            continue
        for names, limit in ((("x", "x1", "x2", "cx"), width), (("y", "y1", "y2", "cy"), height)):
            for name in names:
                if item.get(name) is not None:
                    assert -3.5 <= float(item.get(name) or "") <= limit + 3.5, ElementTree.tostring(item)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(LABELS, TONES, VALUES, st.floats(0, 0.5)), min_size=1, max_size=8), WIDTHS)
def test_interval_chart(rows: list[tuple[str, str, float, float]], width: float) -> None:
    chart = interval_chart([Interval(n, t, v, v - d, v + d) for n, t, v, d in rows], width, "score")
    assert_inside(chart)
    dots, lines = marks(chart, "circle", "dot"), marks(chart, "line", "interval")
    assert len(dots) == len(lines) == len(rows)
    for dot, line in zip(dots, lines, strict=True):
        assert float(line.get("x1") or 0) - 0.2 <= float(dot.get("cx") or 0) <= float(line.get("x2") or 0) + 0.2


def test_interval_chart_places_values_in_proportion() -> None:
    rows = [Interval(str(v), "trial", v, v, v) for v in (0.0, 0.25, 0.5, 1.0)]
    places = [float(d.get("cx") or 0) for d in marks(interval_chart(rows, 680, "score"), "circle", "dot")]
    assert places[1] - places[0] == pytest.approx((places[3] - places[0]) / 4, abs=0.2)
    assert places[2] - places[0] == pytest.approx((places[3] - places[0]) / 2, abs=0.2)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(LABELS, VALUES), min_size=1, max_size=3), min_size=1, max_size=4), WIDTHS, st.none() | st.just(1.0))
def test_bar_chart(groups: list[list[tuple[str, float]]], width: float, reference: float | None) -> None:
    chart = bar_chart([BarGroup("g", tuple(Bar(n, "best", v) for n, v in g)) for g in groups], width, "weight", reference=reference)
    assert_inside(chart)
    values = [v for g in groups for _, v in g]
    bars = marks(chart, "rect", "bar")
    assert len(bars) == len(values)
    longest = max(map(abs, values))
    lengths = [float(b.get("width") or 0) for b in bars]
    for value, length in zip(values, lengths, strict=True):
        assert length == pytest.approx(max(abs(value) / max(longest, 1e-9) * max(lengths), 1), abs=1.2)


POINTS = st.lists(st.tuples(VALUES, st.none() | VALUES, TONES, LABELS), max_size=40)


@settings(max_examples=40, deadline=None)
@given(POINTS, st.lists(VALUES, max_size=7), WIDTHS)
def test_history_chart(found: list[tuple[float, float | None, str, str]], baselines: list[float], width: float) -> None:
    points = [Point(i, i, y, tone, name, "hint") for i, (_, y, tone, name) in enumerate(found)]
    chart = history_chart(points, [Reference(f"{i} alone", "source", v) for i, v in enumerate(baselines)], width)
    assert_inside(chart)
    failed = sum(p.y is None for p in points)
    assert len(marks(chart, "path", "cross")) == failed
    assert len(marks(chart, "g", "mark")) == len(points)
    assert len(marks(chart, "path", "reference")) == len(baselines)
    assert len(marks(chart, "path", "curve")) == (1 if len(points) > failed else 0)


def test_the_line_of_the_best_so_far_never_falls() -> None:
    scores = [0.1, 0.5, None, 0.3, 0.8, 0.2]
    chart = history_chart([Point(i, i, y) for i, y in enumerate(scores)], [], 680)
    (curve,) = marks(chart, "path", "curve")
    heights = [float(v) for v in re.findall(r"[V ]([\d.]+)", curve.get("d") or "")]
    assert len(heights) == 3
    assert heights == sorted(heights, reverse=True)


@settings(max_examples=40, deadline=None)
@given(POINTS, st.booleans())
def test_scatter_chart(found: list[tuple[float, float | None, str, str]], outline: bool) -> None:
    points = [Point(i, x, y, tone, name, "hint", front=i % 3 == 0) for i, (x, y, tone, name) in enumerate(found)]
    chart = scatter_chart(points, "hero", "style", 350, outline=outline)
    assert_inside(chart)
    assert len(marks(chart, "g", "mark")) == sum(p.y is not None for p in points)


def test_labels_in_a_crowd_do_not_cover_each_other() -> None:
    """The trials of a real study, many of them within a tenth of each other."""
    named = {"neon alone": (1.0, 0.0), "octopus alone": (0.0, 1.0), "stack": (0.77, 0.55), "naive": (0.16, 0.66), "best": (0.74, 0.6)}
    tried = {"equal 1/√N": (0.58, 0.63), "equal 0.8": (0.71, 0.6), "ties default": (0.68, 0.62)}
    tried |= {"dare default": (0.45, 0.56), "dare_ties default": (0.46, 0.65)}
    others = [(0.08, 0.93), (0.65, 0.54), (0.19, 0.66), (0.77, 0.53), (0.1, 0.71), (0.77, 0.55), (0.78, 0.54), (0.75, 0.57), (0.75, 0.59)]
    points = [Point(0, x, y, "best", name) for name, (x, y) in named.items()]
    points += [Point(0, x, y, "recipe", name) for name, (x, y) in tried.items()] + [Point(0, x, y) for x, y in others]
    for width in (350.0, 560.0, 680.0):
        drawn = marks(scatter_chart(points, "neon", "octopus", width), "text", "halo")
        shown = {(e[0].text or ""): (float(e.get("x") or 0), float(e.get("y") or 0)) for e in drawn}
        assert set(named) <= set(shown)
        for (name, (x, y)), (other, (u, v)) in itertools.combinations(shown.items(), 2):
            assert abs(y - v) >= 12 or x + 1.1 * text_width(name) <= u + 1 or u + 1.1 * text_width(other) <= x + 1, (name, other)


def test_disasters_are_drawn_at_the_edge() -> None:
    scale = score_scale([-40.0, 0.5], 300, 10)
    assert scale.low == FLOOR
    assert scale(-40.0) == 300
    chart = history_chart([Point(0, 0, -40.0), Point(1, 1, 0.5)], [], 680)
    shapes = [next(c for c in g if c.tag != "title").tag for g in marks(chart, "g", "mark")]
    assert shapes == ["path", "circle"]


def test_names_are_escaped_everywhere() -> None:
    rows = [Interval(HOSTILE, "best", 0.5, 0.4, 0.6)]
    drawn = [
        interval_chart(rows, 680, HOSTILE),
        bar_chart([BarGroup(HOSTILE, (Bar(HOSTILE, "best", 1.0),))], 680, HOSTILE),
        history_chart([Point(0, 0, 0.5, "best", HOSTILE, HOSTILE)], [Reference(HOSTILE, "naive", 0.4)], 680),
        scatter_chart([Point(0, 0.5, 0.5, "best", HOSTILE, HOSTILE)], HOSTILE, HOSTILE, 680),
    ]
    for chart in drawn:
        assert not list(parsed(chart).iter("script"))
        assert not list(parsed(chart).iter("img"))
        assert "<script" not in chart
        assert "onerror=&#34;" in chart


def test_what_misses_a_constraint_is_hollow() -> None:
    points = [Point(1, 0.2, 0.5), Point(2, 0.4, 0.5, feasible=False), Point(3, 0.6, 0.5, "naive", "naive", feasible=False)]
    for chart in (history_chart(points, [], 600), scatter_chart(points, "a", "b", 600)):
        hollow = {e.get("class") for e in parsed(chart).iter() if "infeasible" in (e.get("class") or "").split()}
        assert hollow == {"dot infeasible"}
        assert len(marks(chart, "circle", "infeasible")) == len(marks(chart, "path", "infeasible")) == 1
        assert len([e for e in marks(chart, "circle", "dot") if e.get("class") == "dot"]) == 1


@pytest.mark.parametrize("shape", ["dot", "hollow", "ring", "diamond", "cross", "line", "dash", "bar"])
def test_swatches(shape: str) -> None:
    assert parsed(swatch(shape, "best")).get("aria-hidden") == "true"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=15))
def test_front(values: list[tuple[int, int, int]]) -> None:
    """A member is beaten by none; every other row is beaten by some member."""

    def beats(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return a != b and all(x >= y for x, y in zip(a, b, strict=True))

    front = pareto_front(values)
    members = [v for v, member in zip(values, front, strict=True) if member]
    for value, member in zip(values, front, strict=True):
        assert member == (not any(beats(other, value) for other in members))


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), max_size=12), st.floats(1, 30))
def test_spread_labels(places: list[float], gap: float) -> None:
    moved = spread(places, gap, 0, 100)
    ordered = [m for _, m in sorted(zip(places, moved, strict=True))]
    assert all(-1e-6 <= m <= 100 + 1e-6 for m in moved)
    assert ordered == sorted(ordered)
    step = min(gap, 100 / max(len(places) - 1, 1))
    assert all(b - a >= step - 1e-6 for a, b in itertools.pairwise(ordered))


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), max_size=6, unique_by=lambda x: x // 20))
def test_labels_with_room_stay_where_they_are(places: list[float]) -> None:
    if all(b - a >= 5 for a, b in itertools.pairwise(sorted(places))):
        assert spread(places, 5, 0, 100) == places


@settings(deadline=None)
@given(st.floats(-100, 100), st.floats(0.01, 100), st.integers(2, 8))
def test_ticks_are_round_and_inside(low: float, span: float, count: int) -> None:
    marks_ = ticks(low, low + span, count)
    assert 1 <= len(marks_) <= count + 1
    assert all(low - 1e-6 <= t <= low + span + 1e-6 for t in marks_)
    steps = [b - a for a, b in itertools.pairwise(marks_)]
    for step in steps:
        mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
        assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5)) < 1e-3


@settings(deadline=None)
@given(st.floats(-1, 0), st.floats(0.1, 3))
def test_rounded_up(low: float, high: float) -> None:
    assert high - 1e-6 <= rounded_up(low, high) <= high + (high - low)


def test_scale_clamps() -> None:
    scale = Scale(0, 2, 100, 300)
    assert [scale(v) for v in (-1, 0, 1, 2, 9)] == [100, 100, 200, 300, 300]


@settings(deadline=None)
@given(st.text(max_size=60), st.floats(20, 300))
def test_shortened_text_fits(text: str, room: float) -> None:
    shown = shorten(text, room)
    assert shown == text or (shown.endswith("…") and text.startswith(shown[:-1].rstrip()))
    assert text_width(shown) <= max(room, text_width("…"))


def test_full_width_letters_take_more_room() -> None:
    assert text_width("漢字") > 1.5 * text_width("ab")
    assert text_width("e\u0301") == text_width("e")


def test_elements() -> None:
    made = element("text", "a<b", x=1.25, class_='q"', font_size=3, missing=None)
    assert made == '<text x="1.2" class="q&#34;" font-size="3">a&lt;b</text>'


def test_a_cut_label_keeps_its_text_as_tooltip() -> None:
    root = parsed(label("n" * 300, 0, 0, room=100))
    assert root[0].tag == "title"
    assert root[0].text == "n" * 300


@pytest.mark.parametrize(
    ("value", "digits", "shown"), [(-0.5, 2, "\N{MINUS SIGN}0.50"), (-0.001, 2, "0.00"), (0.25, None, "0.25"), (-0.0, None, "0")]
)
def test_decimals(value: float, digits: int | None, shown: str) -> None:
    assert decimal(value, digits) == shown
