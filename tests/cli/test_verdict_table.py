"""The table of the verdict: whole words and numbers in a terminal of 80 columns, whatever the sources are called."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from optimizer.cli.tables.verdict import print_verdict
from studies import ConfirmedScore, SourceInfo, StudySummary, Verdict

FACTORS = {"separation:factor": 0.85, "familiarity:factor": 0.94}


def summary(*names: str, metrics: dict[str, float] | None = None, **fields: object) -> StudySummary:
    def row(weakest: float) -> ConfirmedScore:
        shares = dict.fromkeys(names, weakest)
        found = FACTORS if metrics is None else metrics
        return ConfirmedScore(weakest=weakest, ci_low=weakest - 0.05, ci_high=weakest + 0.05, sources=shares, artifacts=1.06, metrics=found)

    rows = {"trial 19": row(0.78), "composition (cannot be saved)": row(0.72), f"{names[0]} alone": row(0.1)}
    verdict = Verdict(sentence="The merge keeps 78%.", winner="trial 19", rows=rows, pictures=42)
    sources = tuple(SourceInfo(name=name, role="character") for name in names)
    told = {"title": "a", "version": "1", "created": datetime.now(UTC), "base": "sd1", "sources": sources, "verdict": verdict}
    return StudySummary.model_validate({**told, **fields})


def told(found: StudySummary, capsys: pytest.CaptureFixture[str], width: int = 80) -> list[str]:
    print_verdict(found, Path("study"), None, Console(width=width))
    return capsys.readouterr().out.splitlines()


def test_two_sources_and_every_discount_fit_into_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(summary("robot", "hat"), capsys)
    assert lines[0].split() == ["model", "weakest", "(95%", "CI)", "robot", "hat", "artifacts", "separation", "familiarity"]
    assert lines[2].split() == ["trial", "19", "◂", "0.78", "(0.73–0.83)", "0.78", "0.78", "1.06", "0.85", "0.94"]
    assert all(len(line) <= 80 for line in lines[:5])


def test_more_than_fits_takes_two_lines_for_its_headings_and_cuts_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(summary("mosaic", "octopus", "lighthouse"), capsys)
    start = next(i for i, line in enumerate(lines) if line.startswith("───"))
    assert start > 1
    assert lines[start + 1].split() == ["trial", "19", "◂", "0.78", "(0.73–0.83)", *["0.78"] * 3, "1.06", "0.85", "0.94"]
    assert not any("…" in line for line in lines)
    assert all(len(line) <= 80 for line in lines[: start + 4])


def test_five_sources_fit_where_nothing_is_discounted(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(summary("neon", "hat", "owl", "robot", "ink", metrics={}), capsys)
    assert lines[0].split()[-6:] == ["neon", "hat", "owl", "robot", "ink", "artifacts"]
    assert lines[2].split()[-6:] == ["0.78"] * 5 + ["1.06"]


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(summary("[red]a", "[/b]", targets={"[red]a": 0.9}), capsys, width=120)
    assert "[red]a >= 0.9" in lines[0]
    assert "[/b]" in lines[0]
