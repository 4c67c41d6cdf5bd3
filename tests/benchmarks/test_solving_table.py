"""The benchmark of solved merges: rows on disk, readings, tables, and the choice of fixed weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.solving.__main__ import main
from benchmarks.solving.contestants import ALONE, CEILING
from benchmarks.solving.groups import DEVELOPMENT, LARGER, PAIRS, REPORT, named
from benchmarks.solving.readings import Reading
from benchmarks.solving.rows import Row, Rows
from benchmarks.solving.table import tables
from benchmarks.solving.weights import chosen_weights

GROUP = ("octopus", "owl")


def reading(traits: torch.Tensor, seconds: float = 1.0) -> Reading:
    """Two sources with two own prompts each, and two joint ones."""
    shares = torch.tensor([[0.25, 0.25, 0, 0, 0.25, 0.25], [0, 0, 0.25, 0.25, 0.25, 0.25]])
    leaks = torch.tensor([[False, False, True, True, False, False], [True, True, False, False, False, False]])
    return Reading(("neon", "hat"), traits, shares, ([0, 1], [2, 3], [4, 5]), leaks, seconds, 1_000_000)


def test_a_reading_is_the_weakest_source_over_own_and_joint_prompts() -> None:
    one = reading(torch.tensor([[[1.0, 1, 0, 0.2, 0.5, 0.5], [0.4, 0, 1, 0.6, 0, 0.4]]]))
    assert one.each == pytest.approx({"neon": 0.75, "hat": 0.5})
    assert one.weakest == pytest.approx(0.5)
    assert one.leakage == pytest.approx((0 + 0.2 + 0.4 + 0) / 4)
    low, high = one.interval()
    assert 0.3 <= low < 0.5 <= high <= 0.7


def test_an_interval_of_equal_readings_is_a_point() -> None:
    assert reading(torch.full((3, 2, 6), 0.5)).interval() == pytest.approx((0.5, 0.5))


def test_the_tables_compare_with_the_ceiling_and_the_best_fixed_recipe() -> None:
    amounts = {CEILING: 0.9, "stack": 0.3, "equal": 0.1, "weights": 0.4, "distill": 0.72}
    lines = list(tables({("neon", "hat"): {name: reading(torch.full((1, 2, 6), amount)) for name, amount in amounts.items()}}))
    text = "\n".join(lines)
    assert "neon + hat" in text
    assert "1 pairs; in 1 of them stack and equal weights both lose a source (< 0.70)" in text
    summary = {line.split("  ")[1].strip(): line.split() for line in lines[lines.index("") :] if line.startswith("  ")}
    assert summary["distill"][1:4] == ["1", "0.80", "0.72"]
    assert "distill beats the best fixed recipe by 0.15 or more in 1 of 1; median gain +0.32" in text


def test_recorded_rows_print_without_drawing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, noise = Rows(tmp_path), torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    row = Row(GROUP, "stack", 0, 1, 2.0, 5_000_000, {"weights": [1.0, 1.0]})
    for method in ("stack", *(ALONE + name for name in GROUP)):
        rows.record(replace(row, method=method), noise)
    assert rows.has(GROUP, "stack", 0)
    assert not rows.has(GROUP, "stack", 1)
    assert row in list(rows)
    main(["--table", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "octopus + owl   (not part of the result)" in printed
    assert [line.split()[0] for line in printed.splitlines()[3:]] == [CEILING, "stack"]


def test_weights_are_chosen_near_the_best_point_of_the_grid() -> None:
    tried = chosen_weights(2, lambda weights: -((weights[0] - 0.85) ** 2) - (weights[1] - 1.15) ** 2)
    assert max(tried, key=lambda weights: tried[weights]) == (0.85, 1.15)
    assert len(tried) < 45


def test_groups_of_the_result_were_not_developed_on() -> None:
    assert not {frozenset(group) for group in REPORT} & {frozenset(group) for group in DEVELOPMENT}
    assert len(PAIRS) >= 8
    assert sorted(map(len, LARGER)) == [3, 3, 3, 3, 4]
    assert named(["development", "neon+hat", "octopus+owl"]) == [*DEVELOPMENT, ("neon", "hat")]
