"""Tables: readings of every group, and what they say together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median

from benchmarks.solving.contestants import CEILING, FIXED, METHODS_OF_ALL, WEIGHTED
from benchmarks.solving.groups import REPORT, Group
from benchmarks.solving.readings import Reading

Readings = Mapping[Group, Mapping[str, Reading]]

MARGIN = 0.15
_LOST = 0.7
_KINDS = {2: "pairs", 3: "triples", 4: "quadruples"}
_COMPARED = ("composition", "stack", "best fixed", "ssr", "iteris", "zip", "distill", WEIGHTED)


def tables(readings: Readings) -> Iterator[str]:
    """Yields the lines of a table for each group, and of the summary of those that are reported."""
    for group in sorted(readings, key=lambda group: (group not in REPORT, len(group), group)):
        yield from _group(group, readings[group])
    for size, kind in _KINDS.items():
        yield from _summary(kind, {group: readings[group] for group in REPORT if group in readings and len(group) == size})


def best_fixed(methods: Mapping[str, Reading]) -> str | None:
    """Returns the name of the fixed recipe that reads best; None if there is none."""
    return max((name for name in FIXED if name in methods), key=lambda name: methods[name].weakest, default=None)


def _group(group: Group, methods: Mapping[str, Reading]) -> Iterator[str]:
    yield ""
    marks = "" if group in REPORT else "   (not part of the result)"
    yield f"{' + '.join(group)}{marks}"
    head = "".join(f"{name:>9}" for name in group)
    yield f"  {'method':<28}{'weakest':>8}{'90 %':>13}{head}{'leakage':>9}{'seconds':>9}{'MB':>7}{'seeds':>7}"
    order = {name: i for i, name in enumerate((CEILING, *METHODS_OF_ALL))}
    for name in sorted(methods, key=lambda name: (order.get(name, len(order)), name)):
        one = methods[name]
        low, high = one.interval()
        cells = "".join(f"{value:>9.2f}" for value in one.each.values())
        cost = f"{one.leakage:>9.2f}{one.seconds:>9.0f}{one.memory / 1e6:>7.0f}{len(one.traits):>7}"
        yield f"  {name:<28}{one.weakest:>8.2f}{f'{low:.2f}–{high:.2f}':>13}{cells}{cost}"


def _summary(kind: str, readings: Readings) -> Iterator[str]:
    whole = {group: methods for group, methods in readings.items() if CEILING in methods and best_fixed(methods)}
    if not whole:
        return
    fights = [g for g, m in whole.items() if all(name in m and m[name].weakest < _LOST for name in ("stack", "equal"))]
    yield ""
    yield f"{len(whole)} {kind}; in {len(fights)} of them stack and equal weights both lose a source (< {_LOST:.2f})"
    yield f"  {'method':<16}{'groups':>7}{'of the ceiling, median':>24}{'weakest, median':>17}{'leakage':>9}{'seconds':>9}"
    for name in _COMPARED:
        found = [(m[CEILING], m[own]) for m in whole.values() if (own := (best_fixed(m) or "") if name == "best fixed" else name) in m]
        if found:
            share = median(one.weakest / ceiling.weakest for ceiling, one in found)
            cells = f"{median(one.weakest for _, one in found):>17.2f}{median(one.leakage for _, one in found):>9.2f}"
            yield f"  {name:<16}{len(found):>7}{share:>24.2f}{cells}{median(one.seconds for _, one in found):>9.0f}"
    for name in ("distill", WEIGHTED):
        if gains := [m[name].weakest - m[best_fixed(m) or ""].weakest for m in whole.values() if name in m]:
            won = sum(gain >= MARGIN for gain in gains)
            yield f"  {name} beats the best fixed recipe by {MARGIN:.2f} or more in {won} of {len(gains)}; median gain {median(gains):+.2f}"
