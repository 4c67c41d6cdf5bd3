"""StudySummary: survives its file, and refuses what does not fit together."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from studies import ConfirmedScore, StudyDirectoryError, StudySummary, TrialRecord, load_summary, save_summary
from tests.studies.samples import HOSTILE, LONG, SOURCES, sample


@pytest.mark.parametrize(
    "options", [{}, {"names": SOURCES}, {"finished": False, "count": 17}, {"names": (LONG, HOSTILE), "hostile": HOSTILE}], ids=str
)
def test_round_trip(tmp_path: Path, options: dict[str, Any]) -> None:
    summary = sample(tmp_path, size=8, **options)
    assert save_summary(summary, tmp_path) == tmp_path / "summary.json"
    assert load_summary(tmp_path) == summary


def test_the_file_is_plain_json_even_with_nan(tmp_path: Path) -> None:
    summary = sample(tmp_path, size=8)
    worst = summary.trials[3].evaluation
    assert worst
    broken = TrialRecord(number=99, evaluation=worst.model_copy(update={"score": math.nan}))
    save_summary(summary.model_copy(update={"trials": (*summary.trials, broken)}), tmp_path)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)
    found = load_summary(tmp_path).trials[-1].evaluation
    assert found is not None
    assert math.isnan(found.score)


def test_undecodable_file_names_are_spelled_out(tmp_path: Path) -> None:
    summary = sample(tmp_path, size=8)
    source = summary.sources[0].model_copy(update={"file": "x"}).model_dump() | {"file": "h\udce9ro.safetensors"}
    changed = StudySummary.model_validate(summary.model_dump() | {"sources": (source, summary.sources[1])})
    assert changed.sources[0].file == r"h\udce9ro.safetensors"
    save_summary(changed, tmp_path)
    assert load_summary(tmp_path) == changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"best_number": 9}, "trial 9 is named as the best and is not among the complete trials"),
        ({"best_number": 1000}, "trial 1000 is named as the best"),
        ({"columns": [{"label": "base", "kind": "base", "files": ["a.png"]}]}, "the column 'base' has 1 pictures for 7 prompts"),
        ({"prompts": [{"text": "a ball", "seed": 1, "kind": "own", "source": "zebra"}], "columns": []}, "asks for the source 'zebra'"),
        ({"created": "2025-03-14T21:00:00"}, "created"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    data = sample(tmp_path, size=8).model_dump() | change
    with pytest.raises(ValidationError, match=message):
        StudySummary.model_validate(data)


def test_names_and_numbers_are_unique(tmp_path: Path) -> None:
    data = sample(tmp_path, size=8).model_dump()
    with pytest.raises(ValidationError, match="two sources have one name among neon, neon"):
        StudySummary.model_validate(data | {"sources": [data["sources"][0]] * 2})
    with pytest.raises(ValidationError, match="two trials have one number"):
        StudySummary.model_validate(data | {"trials": [*data["trials"], data["trials"][0]]})


def test_a_verdict_has_the_row_that_it_ships(tmp_path: Path) -> None:
    data = sample(tmp_path, size=8).model_dump()
    with pytest.raises(ValidationError, match="'trial 7' was shipped and has no row among best, naive"):
        StudySummary.model_validate(data | {"verdict": data["verdict"] | {"winner": "trial 7"}})


def test_an_interval_does_not_end_before_it_begins() -> None:
    with pytest.raises(ValidationError, match=r"ends at 0\.1 before it begins at 0\.2"):
        ConfirmedScore(weakest=0.5, ci_low=0.2, ci_high=0.1)


def test_the_weakest_share_and_the_winner_are_read_under_their_earlier_names(tmp_path: Path) -> None:
    summary = sample(tmp_path, size=8)
    assert summary.verdict is not None
    data = json.loads(save_summary(summary, tmp_path).read_text())
    for row in data["verdict"]["rows"].values():
        row["score"] = row.pop("weakest")
        del row["metrics"]
    data["verdict"]["shipped_label"] = data["verdict"].pop("winner")
    del data["pipeline"]
    (tmp_path / "summary.json").write_text(json.dumps(data))
    assert load_summary(tmp_path) == summary
    assert {"weakest", "metrics"} <= summary.verdict.model_dump()["rows"]["best"].keys()


def test_reading_what_is_no_summary(tmp_path: Path) -> None:
    with pytest.raises(StudyDirectoryError, match=r"summary\.json: cannot be read \(No such file or directory\) — resume the study"):
        load_summary(tmp_path)
    (tmp_path / "summary.json").write_text('{"title": "x"')
    with pytest.raises(StudyDirectoryError, match=r"summary\.json: is not a summary \(the file: Invalid JSON.* — move the file away"):
        load_summary(tmp_path)
    (tmp_path / "summary.json").write_text('{"title": 3}')
    with pytest.raises(StudyDirectoryError, match=r"is not a summary \(title: "):
        load_summary(tmp_path)
