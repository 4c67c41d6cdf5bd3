"""The verdict: who is confirmed, who leads, and when the simpler merge is shipped."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from objectives import JOINT, Interval
from optimizer import Recipe
from optimizer.search.evaluation.comparison import (
    Confirmation,
    Contender,
    Drift,
    Lead,
    decide,
    lead_among,
    lead_needed,
    nearest_miss,
    relaxed,
)
from optimizer.search.evaluation.confirmation import finalists
from optimizer.search.labels import EQUAL_NORM, EQUAL_USUAL, NAIVE, STACK
from optimizer.search.results.summary import verdict
from studies.records import TrialRecord, told_misses
from tests.search.runs import record

PICTURES = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
ASKED = torch.tensor([0, 1, JOINT]).repeat_interleave(1000)
"""Kinds of prompts, so many of each that percentiles are not expanded."""


def contender(
    label: str, value: float, alone: bool = False, samples: Tensor | None = None, metrics: dict[str, float] | None = None
) -> Contender:
    recipe = None if alone else Recipe(method="linear", weights=(value, 1.0))
    return Contender(
        label=label,
        number=None if alone else 5,
        recipe=recipe,
        images=PICTURES,
        measurements={},
        score=value,
        samples=torch.full((1,), value) if samples is None else samples,
        weakest=Interval(value, value - 0.1, value + 0.1),
        each={"a": value, "b": value},
        artifacts=0.0,
        metrics=metrics or {},
    )


def samples(*means: float, noise: float = 0.05) -> Tensor:
    """Scores in resamples, with independent noise around each mean, (means, resamples)."""
    return torch.tensor(means)[:, None] + noise * torch.randn(len(means), 2000, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("labels", "means", "leader", "shipped"),
    [
        (["trial 9", STACK, NAIVE], (0.9, 0.5, 0.6), 0, 0),  # clearly better
        (["trial 9", STACK, NAIVE], (0.62, 0.5, 0.6), 0, 2),  # within noise of the naive merge
        (["trial 9", STACK, NAIVE], (0.62, 0.61, 0.6), 0, 1),  # of both: the better one of them
        (["trial 9", "trial 4", NAIVE], (0.62, 0.6, 0.1), 0, 0),  # of another proposal only, which is no simpler
        (["trial 9", STACK, EQUAL_USUAL], (0.62, 0.55, 0.6), 0, 2),  # equal weights are as simple as the stack
        ([EQUAL_USUAL, STACK, NAIVE], (0.62, 0.61, 0.1), 0, 0),  # and need not be better beyond noise
        (["trial 9", STACK, NAIVE], (0.5, 0.9, 0.6), 1, 1),  # a simple merge leads
        (["trial 9"], (0.5,), 0, 0),
    ],
)
def test_the_simpler_merge_is_shipped_within_noise(labels: list[str], means: tuple[float, ...], leader: int, shipped: int) -> None:
    drawn = samples(*means)
    contenders = [contender(label, mean, samples=row) for label, mean, row in zip(labels, means, drawn, strict=True)]
    found = decide(contenders, ASKED)
    assert (found[0] is contenders[leader], found[1] is contenders[shipped]) == (True, True)


def test_equal_merges_are_within_noise() -> None:
    same = samples(0.7)[0]
    leading, stack = contender("trial 9", 0.7, samples=same), contender(STACK, 0.7, samples=same)
    assert [found.label for found in decide([leading, stack], ASKED)] == ["trial 9", STACK]


def test_the_best_of_several_has_to_be_further_ahead() -> None:
    means = (0.63, 0.62, 0.62, 0.62, 0.5)
    labels = ("trial 9", "trial 8", "trial 7", "trial 6", STACK)
    rows = zip(labels, means, samples(*means, noise=0.05), strict=True)
    one, *others, stack = (contender(label, mean, samples=row) for label, mean, row in rows)
    assert lead_needed(one, stack, ASKED, 1) == pytest.approx(1.645 * 0.05 * 2**0.5, abs=0.008)
    assert decide([one, stack], ASKED)[1] is one
    assert lead_needed(one, stack, ASKED, 4) == pytest.approx(2.241 * 0.05 * 2**0.5, abs=0.015)
    assert decide([one, *others, stack], ASKED) == (one, stack)


def test_few_prompts_make_a_lead_uncertain() -> None:
    rows = zip(("trial 9", STACK), (0.63, 0.5), samples(0.63, 0.5), strict=True)
    one, stack = (contender(label, mean, samples=row) for label, mean, row in rows)
    shipped = {size: decide([one, stack], torch.tensor([0, 1]).repeat_interleave(size))[1].label for size in (1, 2, 100)}
    assert shipped == {1: STACK, 2: STACK, 100: "trial 9"}


def test_the_lead_is_that_of_the_best_proposal_over_the_best_simple_merge() -> None:
    labels, means = ["trial 9", "trial 8", STACK, EQUAL_NORM], (0.5, 0.4, 0.55, 0.6)
    rows = zip(labels, means, samples(*means), strict=True)
    merges = {label: contender(label, mean, samples=row) for label, mean, row in rows}
    found = lead_among(list(merges.values()), ASKED)
    assert found
    assert (found.best.label, found.over.label) == ("trial 9", EQUAL_NORM)
    assert found.difference.value == pytest.approx(-0.1)
    assert found.difference.low < -0.2 < 0 < found.difference.high
    assert found.needed == lead_needed(merges["trial 9"], merges[EQUAL_NORM], ASKED, 2)
    assert lead_among([merges[STACK]], ASKED) is None
    assert lead_among([merges["trial 9"]], ASKED) is None


def test_the_remarks_tell_what_the_search_promised_and_what_is_noise() -> None:
    shipped, stack = replace(contender("trial 9", 0.66), searched=0.71), replace(contender(STACK, 0.5), searched=0.52)
    lead = Lead(shipped, stack, Interval(0.16, 0.09, 0.22), 0.056)
    found = verdict(Confirmation(shipped, shipped, (shipped, stack), PICTURES, lead))
    assert found.remarks == (
        "Trial 9 scored 0.71 in the search and 0.66 on 1 new picture.",
        "In score, trial 9 is 0.16 ahead of stack, the best of the simple merges (95% interval of the difference +0.09 to +0.22); "
        "on 1 pictures, leads up to 0.06 are within noise.",
    )
    behind = Lead(shipped, stack, Interval(-0.02, -0.07, 0.03), 0.056)
    told = verdict(Confirmation(stack, stack, (shipped, stack), PICTURES, behind)).remarks
    assert told[0].startswith("Stack scored 0.52 in the search and 0.50 on")
    assert "trial 9 is 0.02 behind stack, the best of the simple merges" in told[1]
    unknown = verdict(Confirmation(stack, stack, (shipped, stack), PICTURES, replace(behind, needed=math.inf))).remarks
    assert unknown[1].endswith("; with one prompt of a kind, every lead is within noise (--confirm).")
    assert verdict(confirmation(STACK, STACK)).remarks == ()


def test_the_drift_is_told_beside_that_of_the_stack() -> None:
    shipped, stack = contender("trial 9", 0.66), contender(STACK, 0.5)
    found = Confirmation(shipped, shipped, (shipped, stack), PICTURES, drift=Drift({"trial 9": 0.043, STACK: 0.95}, "", 14))
    told = verdict(found)
    assert told.remarks == (
        "On 14 prompts without a trigger, it differs from the base by 4% of what a source changes on its own prompts, "
        "the stack by 95% (squared distances).",
    )
    assert {label: row.drift for label, row in told.rows.items()} == {"trial 9": 0.043, STACK: 0.95}
    style = Confirmation(stack, stack, (shipped, stack), PICTURES, drift=Drift({STACK: 0.69}, "neon", 14))
    assert verdict(style).remarks == (
        "On 14 prompts without a trigger, it differs from neon alone by 69% of what a source changes on its own prompts "
        "(squared distances).",
    )
    assert verdict(style).rows["trial 9"].drift is None


def confirmation(shipped: str, leader: str) -> Confirmation:
    contenders = {
        c.label: c for c in (contender("trial 9", 0.62), contender(NAIVE, 0.6), contender(STACK, 0.3), contender("a alone", 0.0, True))
    }
    return Confirmation(contenders[shipped], contenders[leader], tuple(contenders.values()), PICTURES)


def test_the_sentence_says_what_was_shipped_and_why() -> None:
    assert verdict(confirmation("trial 9", "trial 9")).sentence == (
        "The merge keeps 62% of its weakest source (52% to 72%), against 60% for the naive merge and 30% for the stack, "
        "on prompts and seeds that the search never saw."
    )
    simple = verdict(confirmation(NAIVE, "trial 9"))
    assert simple.sentence == (
        "The merge keeps 60% of its weakest source (50% to 70%), against 30% for the stack; "
        "trial 9 was ahead, but within noise, so the simpler naive is shipped."
    )
    assert (simple.winner, list(simple.rows)) == (NAIVE, ["trial 9", NAIVE, STACK, "a alone"])
    assert verdict(confirmation(STACK, STACK)).sentence == (
        "The merge keeps 30% of its weakest source (20% to 40%), against 60% for the naive merge, "
        "on prompts and seeds that the search never saw."
    )


def test_the_sentence_names_what_the_merge_shows_more_of_and_only_that() -> None:
    shipped = replace(
        contender("trial 9", 0.3, metrics={"separation:factor": 0.9, "familiarity:factor": 0.7}), each={"a": 0.9, "b": 0.3}, artifacts=1.0
    )
    naive = replace(contender(NAIVE, 0.4, metrics={"separation:factor": 0.8, "familiarity:factor": 0.9}), artifacts=2.0)
    worn = replace(contender(STACK, 0.5), artifacts=0.5)
    found = verdict(Confirmation(shipped, shipped, (shipped, naive, worn), PICTURES))
    assert (
        "; it shows more of a, less damage and less of sources that a prompt does not ask for than the naive merge; "
        "it shows more of a than the stack, on prompts"
    ) in found.sentence


def test_an_objective_that_speaks_for_the_merge_is_named_in_the_sentence() -> None:
    shipped = contender("trial 9", 0.3, metrics={"brightness:distance": 0.1, "brightness:factor": 0.9})
    darker, brighter = (contender(NAIVE, 0.6, metrics={"brightness:factor": factor}) for factor in (0.5, 1.0))
    found = verdict(Confirmation(shipped, shipped, (shipped, darker), PICTURES))
    assert "; it shows more brightness than the naive merge, on" in found.sentence
    assert found.metrics == ("brightness:distance", "brightness:factor")
    assert found.discounts == {"brightness": "brightness:factor"}
    assert "brightness" not in verdict(Confirmation(shipped, shipped, (shipped, brighter), PICTURES)).sentence


def test_an_objective_that_hardly_discounts_a_merge_is_not_told() -> None:
    shipped, naive = (contender(label, 0.3, metrics={"brightness:factor": 0.985}) for label in ("trial 9", NAIVE))
    alone = contender("a alone", 0.0, metrics={"brightness:factor": 0.5})
    assert verdict(Confirmation(shipped, shipped, (shipped, naive, alone), PICTURES)).discounts == {}


def test_finalists_are_the_best_distinct_merges_and_the_simple_ones() -> None:
    records = [
        *(record(0, 0.99, "a alone"), record(1, 0.1, STACK), record(2, 0.2, NAIVE), record(3, 0.5, "equal 0.8", "x")),
        *(record(4, 0.5, recipe="x"), record(5, None), record(6, 0.9), record(7, 0.4), record(8, 0.2, recipe="2")),
    ]
    assert [r.number for r in finalists(records, 3)] == [6, 3, 7, 1, 2]
    assert [r.number for r in finalists(records, 9)] == [6, 3, 7, 1, 2]
    assert finalists([record(0, 0.9, "a alone"), record(1, None, STACK)], 3) == []


def test_the_better_merge_of_equal_weights_is_compared_beside_the_finalists() -> None:
    records = [record(0, 0.1, STACK), record(1, 0.3, EQUAL_NORM), record(2, 0.4, EQUAL_USUAL), record(3, 0.6), record(4, 0.5)]
    assert [r.number for r in finalists(records, 2)] == [3, 4, 2, 0]
    assert [r.number for r in finalists(records, 3)] == [3, 4, 2, 0]
    assert [r.number for r in finalists([records[0], record(1, 0.0, EQUAL_NORM), records[3]], 3)] == [3, 0]


def test_a_merge_that_is_worth_nothing_is_no_finalist_unless_it_is_a_simple_one() -> None:
    assert [r.number for r in finalists([record(0, 0.0), record(1, 0.0, STACK), record(2, 0.01)], 3)] == [2, 1]


def test_merges_that_miss_a_constraint_are_no_finalists_and_cannot_win() -> None:
    def bound(found: TrialRecord, excess: float) -> TrialRecord:
        assert found.evaluation
        return found.model_copy(update={"evaluation": found.evaluation.model_copy(update={"constraints": {"m": excess}})})

    records = [
        bound(record(0, 0.1, STACK), 1.0),
        bound(record(1, 0.9), 0.1),
        bound(record(2, 0.3), 0.0),
        bound(record(3, 0.99, "a alone"), -1),
    ]
    assert [r.number for r in finalists(records, 3)] == [2, 0]
    assert finalists([records[0], records[1], records[3]], 3) == []
    missed = replace(contender(STACK, 0.7), missed={"m": 0.5, "n": 0.25}, constraints={"m": 1.0, "n": -1.0})
    assert missed.all_missed == {"m": 1.0, "n": 0.25}
    allowed = replace(contender("trial 2", 0.3), constraints={"m": 0.0, "n": -1.0})
    assert (allowed.feasible, missed.feasible) == (True, False)
    found = verdict(Confirmation(allowed, allowed, (missed, allowed), PICTURES))
    assert found.sentence.endswith("against 70% for the stack, on prompts and seeds that the search never saw; the stack misses m and n.")
    assert found.rows[STACK].missed == {"m": 1.0, "n": 0.25}


def test_a_simple_merge_that_keeps_too_little_is_told_with_its_share() -> None:
    missed = replace(contender(STACK, 0.716), missed={"keep:a": 0.19}, constraints={"keep:a": 0.184, "keep:b": -0.016, "m": 0.5})
    allowed = replace(contender("trial 2", 0.95), constraints={"keep:a": -0.05, "keep:b": -0.25, "m": -1.0})
    assert missed.misses() == ["misses m by 0.5", "keeps 0.71 of a, asked for 0.9"]
    found = verdict(Confirmation(allowed, allowed, (missed, allowed), PICTURES))
    assert found.sentence.endswith("; the stack misses m, and keeps 0.71 of a, asked for 0.9.")
    assert found.rows[STACK].missed == {"keep:a": 0.19, "m": 0.5}


def test_a_share_is_never_rounded_up_to_the_one_that_was_asked_for() -> None:
    assert told_misses({"keep:a": 1e-6}, {"a": 0.9}) == ["keeps 0.89 of a, asked for 0.9"]
    assert told_misses({"keep:a": 0.19}, {"a": 0.9}) == ["keeps 0.71 of a, asked for 0.9"]


def test_the_nearest_miss_and_its_remedy() -> None:
    missed = {"stack": {"keep:hero": 0.3, "m": 0.5}, "trial 4": {"keep:hero": 0.19, "m": -1.0}}
    assert nearest_miss(missed, "on fresh prompts", {"hero": 0.9}) == (
        "no merge satisfies all constraints on fresh prompts; trial 4 comes nearest, and keeps 0.71 of hero, asked for 0.9"
    )
    assert relaxed(missed.values()) == "relax the constraint (--metric, --keep), or try more recipes (--budget)"
    assert relaxed([missed["trial 4"]]) == "relax the constraint (--keep), or try more recipes (--budget)"
