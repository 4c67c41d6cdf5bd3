"""The methods that a search tries: which ones it is given, and refusals that name what is wrong before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from optimizer.errors import UsageError
from optimizer.merging import METHODS
from optimizer.merging.methods import AVAILABLE, LIVE
from optimizer.search.config import OPTIONS, Config
from optimizer.search.proposals.methods import available_needs, check_methods, known_methods, searched_methods
from tests.merging.samples import UNCALIBRATED

SOLVED = {name for name, method in METHODS.items() if method.solved}


def config(**options: Any) -> Config:
    return Config.of(**{"sources": ("a.safetensors", "b.safetensors"), "base": "base", "budget": 50, **options})


def test_the_default_list_has_solved_methods_where_the_run_can_solve_them() -> None:
    default = OPTIONS["methods"].default
    assert {"distill", "ssr"} < set(default)
    assert searched_methods(config(), 50) == default
    plain = tuple(method for method in default if method not in SOLVED)
    assert searched_methods(config(), 19) == plain
    for without in ({"base": "fake:"}, {"compile": True}, {"kind": "model"}):
        assert searched_methods(config(**without), 50) == plain
        check_methods(config(**without))


def test_a_list_that_the_user_gives_is_tried_as_it_is() -> None:
    assert searched_methods(config(methods=("iteris",)), 4) == ("iteris",)
    check_methods(config(methods=("iteris",), budget=4))
    with pytest.raises(UsageError, match=r"^--methods: the method 'iteris' needs activations of the base model, which"):
        check_methods(config(methods=("iteris",), base="fake:"))


def test_demo_sources_can_be_solved_on_their_base() -> None:
    assert available_needs(Config.of(sources=("demo:neon", "demo:owl"))) == LIVE
    assert available_needs(Config.of(sources=("demo:neon", "demo:owl"), base="fake:")) == AVAILABLE


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        known_methods(("ties", "tise"), 2)
    assert str(caught.value) == f"--methods: there is no merge method 'tise' — choose from {', '.join(UNCALIBRATED)}"
    with pytest.raises(UsageError, match=r"iso, orthogonalize, distill, ssr, iteris, zip$"):
        known_methods(("tise",), 2, LIVE)


def test_a_method_that_applies_a_router_is_not_searched() -> None:
    with pytest.raises(UsageError) as caught:
        known_methods(("ties", "routed"), 2)
    assert str(caught.value) == (
        "--methods: the method 'routed' applies a router that was solved before, and a search has none — "
        f"choose from {', '.join(UNCALIBRATED)}"
    )


def test_a_method_for_two_sources_is_refused_for_three() -> None:
    with pytest.raises(
        UsageError, match=r"^--methods: the method 'slerp' merges at most 2 sources \(got 3\) — choose from linear, (?!.*slerp)"
    ):
        known_methods(("slerp",), 3)
