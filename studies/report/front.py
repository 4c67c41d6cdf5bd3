"""The section on the Pareto front: its members with their contact sheets, and, for two sources, a chart of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from studies.directory import StudyDirectory
from studies.records import Evaluation
from studies.report.charts import scatter_chart
from studies.report.figures import Figure, both_widths, tone_of
from studies.report.marks import Point
from studies.report.pictures import Picture, inline_picture
from studies.report.svg import decimal
from studies.summary import FrontMember, StudySummary

_WIDE = 480.0
_CAPTION = (
    "Each mark is a member, with the number of its trial. One that lies left of and below another is ahead in artifacts, or in what else "
    "discounts the score."
)


@dataclass(frozen=True)
class FrontRow:
    """One member of the front, with its contact sheet."""

    member: FrontMember
    name: str
    tone: str
    evaluation: Evaluation
    sheet: Picture


def front_rows(summary: StudySummary, study: StudyDirectory) -> tuple[FrontRow, ...]:
    """Returns the members of the front, in the order of the summary."""
    return tuple(
        FrontRow(member, name, tone, found, inline_picture(study, member.sheet)) for member, name, tone, found in _members(summary)
    )


def front_figure(summary: StudySummary) -> Figure | None:
    """Returns a chart of the shares that the members keep of two sources.

    Returns None for another number of sources, without a front, or if one of the sources cannot be measured.
    """
    members = list(_members(summary))
    if len(summary.names) != 2 or not members:
        return None
    first, second = summary.names
    if not all(math.isfinite(_share(found, name)) for *_, found in members for name in summary.names):
        return None  # one of them cannot be measured
    points = [
        Point(member.number, _share(found, first), _share(found, second), tone, str(member.number), _hint(member, found), front=True)
        for member, _, tone, found in members
    ]
    x_name, y_name = f"preservation of {first}", f"preservation of {second}"
    chart = both_widths(lambda width: scatter_chart(points, x_name, y_name, width, outline=False), _WIDE)
    return Figure(chart, _CAPTION)


def _members(summary: StudySummary) -> Iterator[tuple[FrontMember, str, str, Evaluation]]:
    """Yields each member with the label, the tone and the evaluation of its trial."""
    records = {record.number: record for record in summary.trials}
    for member in summary.front:
        record = records[member.number]
        if record.evaluation is not None:
            yield member, record.label, "best" if member.number == summary.best_number else tone_of(record.label), record.evaluation


def _share(found: Evaluation, name: str) -> float:
    return found.sources[name].preservation


def _hint(member: FrontMember, found: Evaluation) -> str:
    kept = ", ".join(f"{name} {decimal(source.preservation, 2)}" for name, source in found.sources.items())
    return f"trial {member.number}: {kept}, artifacts {decimal(found.artifacts, 2)}"
