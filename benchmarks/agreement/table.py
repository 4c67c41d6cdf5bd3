"""Tables: how well shares agree with the probes, group by group and over all."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from benchmarks.agreement.candidates import STACK
from benchmarks.agreement.groups import REPORT

CLAIMED, ABSENT = 0.5, 0.1
"""A share of at least ``CLAIMED`` where the probes read at most ``ABSENT`` is a false claim."""


def tables(frame: pd.DataFrame, worst: int) -> Iterator[str]:
    """Yields the lines of the tables of the groups of the result, then those of other groups, then the largest differences."""
    reported = frame["group"].isin([" + ".join(group) for group in REPORT])
    for title, part in (("groups of the result", frame[reported]), ("groups that the score was chosen on", frame[~reported])):
        if len(part):
            yield from _table(title, part)
    ordered = frame.assign(off=(frame["share"] - frame["probe"]).abs()).nlargest(worst, "off")
    for row in ordered.itertuples():
        yield f"  {row.group:<24} {row.candidate:<22} {row.source:<8} share {row.share:.2f}  probe {row.probe:.2f}"


def _table(title: str, frame: pd.DataFrame) -> Iterator[str]:
    yield ""
    yield f"{title}: Spearman's rank correlation with the probes' reading, and differences from it"
    yield f"  {'':<24}{'rows':>6}{'share':>8}{'CLIP-I':>8}{'off by':>8}{'false':>7}{'leakage':>9}{'score':>7}   single sources"
    for group, part in [*frame.groupby("group", sort=False), ("all", frame)]:
        sources = [(source, rho(own)) for source, own in part.groupby("source", sort=False)] if group != "all" else []
        told = ", ".join(f"{source} {value:.2f}" for source, value in sources)
        off = (part["share"] - part["probe"]).abs().mean()
        cells = f"{rho(part):>8.2f}{rho(part, 'clip_i'):>8.2f}{off:>8.2f}{false_claims(part):>7}{_leakage(part):>9.2f}{_score(part):>7.2f}"
        yield f"  {group:<24}{len(part):>6}{cells}   {told}"
    for group, part in frame[frame["candidate"] == STACK].groupby("group", sort=False):
        told = ", ".join(f"{row.source} {row.share:.2f} (probe {row.probe:.2f})" for row in part.itertuples())
        yield f"  stack of {group}: {told}"


def rho(frame: pd.DataFrame, column: str = "share") -> float:
    """Returns Spearman's rank correlation of a column with the probes' reading."""
    return float(frame[column].corr(frame["probe"], method="spearman"))


def false_claims(frame: pd.DataFrame) -> int:
    """Returns the number of sources that are claimed to be kept where the probes see next to nothing of them."""
    return int(((frame["share"] >= CLAIMED) & (frame["probe"] <= ABSENT)).sum())


def _leakage(frame: pd.DataFrame) -> float:
    told = frame.dropna(subset=["leakage", "probe_leakage"])
    return float(told["leakage"].corr(told["probe_leakage"], method="spearman"))


def _score(frame: pd.DataFrame) -> float:
    """Returns Spearman's rank correlation of the score with the reading of the weakest source, over candidates."""
    weakest = frame.groupby(["group", "candidate"]).agg({"score": "first", "probe": "min"})
    return float(weakest["score"].corr(weakest["probe"], method="spearman"))
