"""docs/search.md: its ranges and first weights are those of the code, and its options exist."""

from __future__ import annotations

import re
from pathlib import Path

from optimizer.search.config import OPTIONS
from optimizer.search.labels import BALANCED, BY_ROLE
from optimizer.search.proposals.priors import priors
from optimizer.search.proposals.space import BLOCK_RANGE, WEIGHT_RANGE

PAGE = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")


def test_every_option_exists() -> None:
    named = set(re.findall(r"--([a-z]+(?:-[a-z]+)*)", PAGE))
    assert {"weights", "freeze", "blocks", "grid", "patience", "no-pruning"} <= named
    assert {name.replace("-", "_") for name in named} <= OPTIONS.keys()


def test_ranges_and_grid() -> None:
    for low, high in (WEIGHT_RANGE, BLOCK_RANGE):
        assert f"| {low:g} to {high:g}" in PAGE
    assert f"`--grid` ({OPTIONS['grid'].default:g})" in PAGE


def test_first_weights() -> None:
    found = {prior.label: prior.weights for prior in priors(("a", "b", "c"), (1.0, 1.0, 1.0), ("style", "character", "concept"))}
    assert f"(mean {sum(found[BALANCED]) / 3:g})" in PAGE
    assert "style {:g}, character {:g}, concept {:g}".format(*found[BY_ROLE]) in PAGE
    assert "one source at {:g} and the others at {:g}".format(*found["a leading"]) in PAGE
