"""Tables: the columns that others rely on, their types, and both file formats."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from studies import Evaluation, SourceScore, TrialRecord, frames, trials_frame, write_tables
from studies.frames import natural


def record(number: int, blocks: list[dict[str, float]] | None = None, label: str = "", **recipe: object) -> TrialRecord:
    scores = {
        "hero": SourceScore(preservation=0.7, own=0.8, joint=0.6, leakage=0.1),
        "style": SourceScore(preservation=0.5, own=0.4, joint=0.6, leakage=0.2),
    }
    full = {"method": "ties", "weights": [0.7, 0.5], "blocks": blocks or [], "rank": 32, "density": 0.4, "seed": 3} | recipe
    found = Evaluation(recipe=full, recipe_hash="ab", score=0.5, sources=scores, artifacts=0.05, seconds=12.5)
    return TrialRecord(number=number, label=label, evaluation=found)


FAILED = TrialRecord(number=1, state="FAIL", error="out of memory, \"twice\"\nin a row; 'ü'")
RECORDS = (
    record(2, [{"OUT10": 0.5, "OUT2": 1.5}, {"MID": 0.0}]),
    FAILED,
    record(0, label="naive", method="linear", rank=None, density=None),
)


def test_columns_are_pinned() -> None:
    """A change here breaks the scripts of everybody who reads trials.csv: add at the end of a group, never rename."""
    assert list(trials_frame(RECORDS).columns) == [
        *("number", "label", "state", "error", "score", "artifacts", "seconds", "method", "rank", "density", "seed"),
        *("checkpoint", "seconds_solve", "feasible", "score_low", "score_high", "pruned"),
        *("weight:hero", "weight:style"),
        *("preservation:hero", "preservation:style"),
        *("own:hero", "own:style"),
        *("joint:hero", "joint:style"),
        *("leakage:hero", "leakage:style"),
        *("block:hero:OUT2", "block:hero:OUT10", "block:style:MID"),
    ]


def test_values_of_further_objectives_are_the_last_columns() -> None:
    first, second = record(3), record(4)
    assert first.evaluation
    assert second.evaluation
    metrics = {"artifact_flat": 0.0, "seconds_render": 2.0, "novelty:ratio": 1.5, "novelty:share:hero": 0.5}
    first = first.model_copy(update={"evaluation": first.evaluation.model_copy(update={"metrics": metrics})})
    frame = trials_frame([*RECORDS, first, second])
    assert list(frame.columns)[-3:] == ["block:style:MID", "metric:novelty:ratio", "metric:novelty:share:hero"]
    assert frame["metric:novelty:ratio"].dtype == "float64"
    assert frame["metric:novelty:ratio"].tolist()[3] == 1.5
    assert frame["metric:novelty:ratio"].isna().tolist() == [True, True, True, False, True]


def test_trials_that_miss_a_constraint_are_told_from_others_and_from_failures() -> None:
    bound = record(3)
    assert bound.evaluation
    bound = bound.model_copy(update={"evaluation": bound.evaluation.model_copy(update={"constraints": {"m": -1.0, "keep:hero": 0.1}})})
    frame = trials_frame([*RECORDS, bound])
    assert frame["feasible"].tolist() == [True, pd.NA, True, False]
    assert [line.split(",")[13] for line in frame.to_csv(index=False).splitlines() if line[0] in "023"] == ["True", "True", "False"]


def test_every_column_is_documented_with_its_type() -> None:
    text = frames.__doc__ or ""
    table = {line.split()[0]: line.split()[1] for line in text.splitlines() if len(line.split()) > 2 and not line.startswith("=")}
    assert {name: table[name] for name in frames.COLUMNS} == dict(frames.COLUMNS)
    assert all(table[f"{name}:<source>"] == "float64" for name in frames.SOURCE_COLUMNS)
    assert table["block:<source>:<block>"] == table["metric:<objective>:<name>"] == "float64"


def test_types() -> None:
    frame = trials_frame(RECORDS)
    found = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert found == dict(frames.COLUMNS) | {name: "float64" for name in frame.columns if ":" in name}


def test_values_and_order() -> None:
    frame = trials_frame(RECORDS)
    assert frame["number"].tolist() == [0, 1, 2]
    assert frame["label"].tolist() == ["naive", "", ""]
    last = frame.iloc[2]
    found = [last[c] for c in ("score", "artifacts", "seconds", "method", "rank", "density", "seed", "weight:hero", "weight:style")]
    assert found == [0.5, 0.05, 12.5, "ties", 32, 0.4, 3, 0.7, 0.5]
    scores = [last[f"{c}:{s}"] for s in ("hero", "style") for c in ("preservation", "own", "joint", "leakage")]
    assert scores == [0.7, 0.8, 0.6, 0.1, 0.5, 0.4, 0.6, 0.2]
    assert [last[c] for c in ("block:hero:OUT2", "block:hero:OUT10", "block:style:MID")] == [1.5, 0.5, 0.0]


def test_solved_merges_have_a_checkpoint_and_the_time_of_solving() -> None:
    solved = record(3, method="distill", checkpoint=80)
    assert solved.evaluation
    metrics = {"seconds_solve": 10.5, "seconds_merge": 0.5}
    solved = solved.model_copy(update={"evaluation": solved.evaluation.model_copy(update={"metrics": metrics})})
    frame = trials_frame([*RECORDS, solved])
    assert frame["checkpoint"].isna().tolist() == [True, True, True, False]
    assert frame["checkpoint"][3] == 80
    assert frame["seconds_solve"][3] == 10.5


def test_a_failed_trial_has_no_numbers() -> None:
    row = trials_frame(RECORDS).iloc[1]
    assert row["state"] == "FAIL"
    assert row["error"] == FAILED.error
    assert row.drop(["number", "label", "state", "error"]).isna().all()


def test_missing_parameters_are_empty() -> None:
    row = trials_frame(RECORDS).iloc[0]
    assert row[["rank", "density", "block:hero:OUT2"]].isna().all()


def test_no_trials() -> None:
    frame = trials_frame([], ["hero"])
    assert len(frame) == 0
    assert list(frame.columns)[-5:] == ["weight:hero", "preservation:hero", "own:hero", "joint:hero", "leakage:hero"]
    assert str(frame["rank"].dtype) == "Int64"


def test_of_three_sources_each_has_its_leakage_on_the_prompts_of_each_other() -> None:
    scores = {name: SourceScore(preservation=1.0, own=1.0, joint=1.0, leakage=0.5) for name in "abc"}
    scores["a"] = scores["a"].model_copy(update={"leaks": {"b": 0.25, "c": 0.75}})
    recipe: dict[str, object] = {"weights": [1.0, 1.0, 1.0]}
    found = trials_frame(
        [TrialRecord(number=0, evaluation=Evaluation(recipe=recipe, recipe_hash="", score=1.0, sources=scores, artifacts=0.0))]
    )
    columns = [column for column in found.columns if column.count(":") == 2]
    assert columns == ["leakage:a:b", "leakage:a:c", "leakage:b:a", "leakage:b:c", "leakage:c:a", "leakage:c:b"]
    assert found[columns].iloc[0].fillna(-1).tolist() == [0.25, 0.75, -1, -1, -1, -1]


def test_only_failed_trials() -> None:
    assert trials_frame([FAILED], ["hero"])["preservation:hero"].isna().all()


def test_source_names_may_hold_a_colon() -> None:
    scores = {"a:b": SourceScore(preservation=1.0, own=1.0, joint=1.0)}
    recipe: dict[str, object] = {"weights": [1.0], "blocks": [{"MID": 0.5}]}
    found = Evaluation(recipe=recipe, recipe_hash="", score=1.0, sources=scores, artifacts=0.0)
    assert trials_frame([TrialRecord(number=0, evaluation=found)])["block:a:b:MID"].tolist() == [0.5]


def test_the_order_of_the_sources_can_be_given() -> None:
    frame = trials_frame(RECORDS, ["style", "hero"])
    assert frame["weight:style"].tolist()[2] == 0.7
    assert frame["preservation:style"].tolist()[2] == 0.5


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (record(4, weights=[1.0]), r"trial 4: the recipe has 1 weights for 2 sources \(hero, style\)"),
        (record(4, blocks=[{}, {}, {}]), r"trial 4: the recipe has block weights for 3 sources instead of 2 \(hero, style\)"),
    ],
)
def test_a_recipe_that_does_not_fit_is_named(trial: TrialRecord, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trials_frame([trial])


def test_both_files_hold_the_same_table(tmp_path: Path) -> None:
    frame = trials_frame(RECORDS)
    csv, parquet = write_tables(RECORDS, tmp_path)
    assert (csv, parquet) == (tmp_path / "trials.csv", tmp_path / "trials.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), frame)
    read = pd.read_csv(csv, keep_default_na=False, na_values={c: [""] for c in frame.columns if c not in ("label", "state", "error")})
    pd.testing.assert_frame_equal(read.astype(frame.dtypes.to_dict()), frame)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["trials.csv", "trials.parquet"]


def test_natural_order() -> None:
    blocks = ["OUT11", "MID", "IN10", "IN2", "IN", "DOUBLE_00", "OUT2"]
    assert sorted(blocks, key=natural) == ["DOUBLE_00", "IN", "IN2", "IN10", "MID", "OUT2", "OUT11"]
