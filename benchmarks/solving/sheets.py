"""Sheets: pictures of joint prompts side by side, labelled, or shuffled with a key."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from benchmarks.solving.contestants import ALONE, WEIGHTED
from benchmarks.solving.groups import Group
from benchmarks.solving.readings import readings_of
from benchmarks.solving.rows import Rows
from benchmarks.solving.table import best_fixed
from benchmarks.truth import Judge, demo_sources_of, unseen_prompts
from studies.demo.sheet import contact_sheet

_SHOWN = 8
_SEED = 0
_TITLES = {"weights": "best weights", WEIGHTED: "distill, weights"}


def draw(rows: Rows, judge: Judge, groups: Sequence[Group], *, contact: Path | None, blind: Path | None) -> None:
    """Writes a labelled sheet a group, and a sheet that compares the best fixed recipe with distill without saying which is which.

    Args:
        rows: what was recorded.
        judge: reads which fixed recipe is best.
        groups: groups to draw, where they were recorded.
        contact: folder of the labelled sheets; None for none.
        blind: folder of the shuffled sheets and of ``key.json``; None for none.
    """
    readings, key = readings_of(rows, judge), {}
    for group in (group for group in groups if "distill" in readings.get(group, {})):
        fixed, shown = best_fixed(readings[group]), _joint(rows, judge, group)
        assert fixed is not None
        if contact:
            order = [*(ALONE + name for name in group), "composition", fixed, "distill", WEIGHTED]
            pictures = {_TITLES.get(name, name.removeprefix(ALONE)): shown[name] for name in order if name in shown}
            print(contact_sheet(pictures, contact / f"solved-{'-'.join(group)}.png"))
        if blind:
            key["+".join(group)] = _shuffled(group, shown, fixed, blind)
    if blind:
        (blind / "key.json").write_text(json.dumps(key, indent=1))


def _joint(rows: Rows, judge: Judge, group: Group) -> dict[str, Tensor]:
    """Returns pictures of joint prompts by method, (n, 3, 64, 64)."""
    found = {}
    for row in rows:
        if (row.group, row.seed) == (group, _SEED):
            joint = unseen_prompts(demo_sources_of(group, judge), each=row.each).indices(None)
            found[row.method] = rows.pictures(row)[joint[:_SHOWN]]
    return found


def _shuffled(group: Group, shown: Mapping[str, Tensor], fixed: str, folder: Path) -> dict[str, str]:
    """Writes one sheet, and returns which letter is which method."""
    names = [fixed, "distill"]
    random.Random("+".join(group)).shuffle(names)
    alone = {name: shown[ALONE + name] for name in group if ALONE + name in shown}
    contact_sheet(
        {**alone, **{letter: shown[name] for letter, name in zip("AB", names, strict=True)}}, folder / f"blind-{'-'.join(group)}.png"
    )
    return dict(zip("AB", names, strict=True))
