"""Outcomes in records: fields for the standard objectives, metrics for all others, NaN for what was not measured."""

from __future__ import annotations

import math

import torch

from objectives import Outcome
from optimizer.search.evaluation.record_fields import artifact_level, further_metrics, metrics, source_scores


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


STANDARD = {
    "preservation": Outcome(shares=numbers(0.5, 0.25), by_source={"own": numbers(0.25, 0), "joint": numbers(0.75, 0.5)}),
    "separation": Outcome(factor=torch.tensor(0.75), by_source={"leakage": numbers(0, 0.125)}),
    "artifacts": Outcome(factor=torch.tensor(0.5), values={"level": torch.tensor(2.0), "flat": torch.tensor(0.0)}),
}
LAYOUT = Outcome(
    shares=numbers(0.5, 1.0),
    factor=torch.tensor(0.75),
    values={"distance": torch.tensor(3.0)},
    by_source={"overlap": numbers(1, 2)},
)


def test_the_standard_objectives_have_fields() -> None:
    found = source_scores(STANDARD, ["hat", "neon"])
    assert found["hat"].model_dump() == {"preservation": 0.5, "own": 0.25, "joint": 0.75, "leakage": 0.0, "leaks": {}}
    assert found["neon"].model_dump() == {"preservation": 0.25, "own": 0.0, "joint": 0.5, "leakage": 0.125, "leaks": {}}
    assert artifact_level(STANDARD) == 2
    assert metrics(STANDARD, ["hat", "neon"]) == {"artifact_flat": 0, "separation:factor": 0.75}
    assert further_metrics(STANDARD, ["hat", "neon"]) == {"separation:factor": 0.75}


def test_of_three_sources_each_has_its_leakage_on_the_prompts_of_each_other() -> None:
    pairs = torch.tensor([[math.nan, 0.5, 0.25], [0.0, math.nan, math.nan], [1.0, 0.75, math.nan]])
    outcomes = {
        "preservation": Outcome(shares=numbers(0.5, 0.25, 1)),
        "separation": Outcome(factor=torch.tensor(0.5), by_source={"leakage": numbers(0.4, 0, 1)}, by_pair={"leakage": pairs}),
    }
    found = source_scores(outcomes, ["hat", "neon", "owl"])
    assert {name: each.leaks for name, each in found.items()} == {
        "hat": {"neon": 0.5, "owl": 0.25},
        "neon": {"hat": 0.0},
        "owl": {"hat": 1.0, "neon": 0.75},
    }


def test_the_values_of_others_are_metrics() -> None:
    wanted = {
        "separation:factor": 0.75,
        "layout:distance": 3,
        "layout:overlap:hat": 1,
        "layout:overlap:neon": 2,
        "layout:share:hat": 0.5,
        "layout:share:neon": 1,
        "layout:factor": 0.75,
    }
    both = STANDARD | {"layout": LAYOUT}
    assert metrics(both, ["hat", "neon"]) == {"artifact_flat": 0} | wanted
    assert further_metrics(both, ["hat", "neon"]) == wanted
    assert [share.preservation for share in source_scores(both, ["hat", "neon"]).values()] == [0.5, 0.5]  # √(½·½), √(¼·1)


def test_what_was_not_measured_is_nan() -> None:
    (hat, _) = source_scores({"layout": LAYOUT}, ["hat", "neon"]).values()
    assert hat.preservation == 0.5
    assert all(map(math.isnan, (hat.own, hat.joint, hat.leakage, artifact_level({"layout": LAYOUT}))))
