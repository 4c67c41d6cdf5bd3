"""Names of exported files."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.export import file_name, next_free


def test_sources_method_weights_and_version() -> None:
    assert file_name(["hero", "neon"], [0.7, 1.0], "ties", 2) == "hero-neon_ties_0.7-1_v2.safetensors"


def test_negative_and_tiny_weights_stay_apart() -> None:
    assert file_name(["a", "b", "c"], [-0.5, 1e-7, 12.3456], "sum", 1) == "a-b-c_sum_m0.5-1em07-12.3_v1.safetensors"


@given(st.lists(st.tuples(st.text(max_size=200), st.floats(-4, 4)), min_size=1, max_size=5), st.text(max_size=200), st.integers(1, 99))
def test_any_names_give_a_safe_short_name(sources: list[tuple[str, float]], method: str, version: int) -> None:
    name = file_name([name for name, _ in sources], [weight for _, weight in sources], method, version)
    assert all(character in ".+_-" or unicodedata.category(character)[0] in "LMN" for character in name)
    assert name[0] not in ".-"
    assert len(name.encode()) <= 120
    assert name.endswith(f"_v{version}.safetensors")
    assert Path(name).name == name


def test_a_long_name_does_not_hide_the_others() -> None:
    name = file_name(["x" * 200, "hero", "neon"], [1, 1, 1], "knots", 1)
    assert "-hero-neon_knots" in name


@pytest.mark.parametrize(("names", "weights"), [([], []), (["a"], [1.0, 2.0])])
def test_as_many_weights_as_sources(names: list[str], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="need one weight for each"):
        file_name(names, weights, "sum", 1)


def test_next_free_counts_up(tmp_path: Path) -> None:
    first = tmp_path / "a_sum_1_v1.safetensors"
    assert next_free(first) == first
    first.touch()
    (tmp_path / "a_sum_1_v2.safetensors").touch()
    assert next_free(first) == tmp_path / "a_sum_1_v3.safetensors"


def test_next_free_versions_a_name_without_one(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").touch()
    assert next_free(tmp_path / "mine.safetensors") == tmp_path / "mine_v2.safetensors"


def test_next_free_does_not_write_through_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").symlink_to(tmp_path / "elsewhere")
    assert next_free(tmp_path / "mine.safetensors") == tmp_path / "mine_v2.safetensors"
