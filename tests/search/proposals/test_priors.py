"""Weights that are worth trying first, and which trials a study begins with when it has them."""

from __future__ import annotations

import pytest

from optimizer.search.labels import BALANCED, BY_ROLE, EQUAL_LOW, EQUAL_MEDIUM
from optimizer.search.proposals.bounds import Bounds
from optimizer.search.proposals.initial_trials import Start, defaults
from optimizer.search.proposals.priors import priors
from optimizer.search.proposals.space import SearchSpace


def space(methods: tuple[str, ...] = ("linear", "distill", "ssr", "ties", "dare_ties"), **bounds: object) -> SearchSpace:
    return SearchSpace(
        names=("hero", "style"),
        hashes=("0" * 64, "1" * 64),
        methods=methods,
        groups=((), ()),
        blocks={},
        rank=None,
        sum_of_ranks=8,
        dtype="fp16",
        seed=0,
        bounds=Bounds(grid=0.05, **bounds),  # type: ignore[arg-type]
        priors=priors(("hero", "style"), (2.4, 1.0), ("character", "style")),
    )


def weights_of(found: SearchSpace, starts: list[Start]) -> dict[str, tuple[float, ...]]:
    return {start.label: found.recipe(start.values).weights for start in starts}


def test_what_strengths_and_roles_suggest() -> None:
    found = {prior.label: prior.weights for prior in priors(("hero", "style"), (2.4, 1.0), ("character", "style"))}
    assert list(found)[:4] == [BALANCED, BY_ROLE, "hero leading", "style leading"]
    assert found[BALANCED][1] / found[BALANCED][0] == pytest.approx(2.4)
    assert sum(found[BALANCED]) == pytest.approx(2 * 0.7)
    assert found[BY_ROLE] == (0.5, 0.7)
    assert (found["hero leading"], found["style leading"]) == ((0.8, 0.4), (0.4, 0.8))
    assert (found[EQUAL_LOW], found[EQUAL_MEDIUM]) == ((0.6, 0.6), (0.7, 0.7))


def test_what_is_not_known_suggests_nothing() -> None:
    labels = [prior.label for prior in priors(("a", "b"), (1.0, 0.0), ("style", "style"))]
    assert BALANCED not in labels
    assert BY_ROLE not in labels


def test_solved_merges_come_before_weights_and_checkpoints_after() -> None:
    found = space()
    labels = [start.label for start in defaults(found, 100)]
    assert labels[:5] == ["equal 1/√N", "equal 0.8", "distill default", "ssr default", "ties default"]
    assert labels[5:9] == [BALANCED, BY_ROLE, "hero leading", "style leading"]
    assert labels.index("dare_ties default") > labels.index(EQUAL_LOW)
    assert any(label.startswith("distill at") for label in labels)


def test_weights_that_are_nearly_tried_already_are_left_out() -> None:
    found = space()
    labels = [start.label for start in defaults(found, 100)]
    assert EQUAL_MEDIUM not in labels  # 1/√2 is tried
    assert EQUAL_LOW in labels


def test_ranges_and_fixed_weights_hold_in_every_start() -> None:
    ranged = space(ranges={"hero": (0.4, 0.6)})
    for start in defaults(ranged, 100):
        assert 0.4 <= ranged.recipe(start.values).weights[0] <= 0.6, start.label
    fixed = space(frozen={"style": 0.65})
    for start in defaults(fixed, 100):
        assert fixed.recipe(start.values).weights[1] == 0.65, start.label


def test_a_weight_that_becomes_0_loses_a_source_and_is_no_start() -> None:
    found = space(ranges={"hero": (-0.5, 0.0)})
    assert not [label for label in weights_of(found, defaults(found, 100)) if label.endswith("leading")]
