"""Block weights of several sources in one YAML file."""

from __future__ import annotations

from pathlib import Path

import pytest

from optimizer.errors import RecipeError
from optimizer.merging import Recipe, read_blocks, read_blocks_file

NAMES = ("neon", "robot", "hat")


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "blocks.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_sources_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "robot: {IN: 1, OUT: 0.4, OUT05: 8e-1}\nneon: STYLE\n")
    found = read_blocks_file(path, NAMES, "sd1")
    assert found == (read_blocks("STYLE", "sd1"), {"IN": 1.0, "OUT": 0.4, "OUT05": 0.8}, {})
    assert len(Recipe(method="linear", weights=(1.0, 1.0, 1.0), blocks=found).blocks) == 3


def test_sources_in_order(tmp_path: Path) -> None:
    ones = ", ".join("1" * 17)
    path = written(tmp_path, f"- IN04:0.5, OUT=2\n- [{ones}]\n- kohya:[{ones}]\n")
    found = read_blocks_file(str(path), NAMES, "unknown")
    assert found == ({"IN04": 0.5, "OUT": 2.0}, read_blocks(ones, "sd1"), read_blocks(f"kohya:{ones}", "sd1"))


def test_an_empty_entry_is_no_block_weights(tmp_path: Path) -> None:
    assert read_blocks_file(written(tmp_path, "neon:\nrobot: ALL\n"), NAMES, "sd3") == ({}, {}, {})
    assert read_blocks_file(written(tmp_path, "- \n- ALL\n- {}\n"), NAMES, "sd3") == ({}, {}, {})


def test_numbers_are_names_of_sources_too(tmp_path: Path) -> None:
    assert read_blocks_file(written(tmp_path, "12: IN=0"), ("12",), "sd1") == ({"IN": 0.0},)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "block weights are a mapping of sources, or a list in their order, not NoneType — write one entry a source: neon, robot, hat"),
        ("ALL", "block weights are a mapping of sources, or a list in their order, not str — write one entry a source: neon, robot, hat"),
        ("- ALL\n- ALL\n", "2 entries for 3 sources — give one a source, in their order"),
        ("cat: ALL\n", "unknown source 'cat' — sources: neon, robot, hat"),
        (
            "neon: 0.5\n",
            "neon: an entry is a mapping, a list or text, not float — write block: number for each block, or text such as STYLE",
        ),
        ("neon: {IN: .nan}\n", "neon: the weight of IN is nan, not a finite number — give a number such as 0.5"),
        ("- ALL\n- {IN: .inf}\n- ALL\n", "robot: the weight of IN is inf, not a finite number — give a number such as 0.5"),
        ("neon: {IN: yes}\n", "neon: the weight of IN is True, not a finite number — give a number such as 0.5"),
        ("neon: {IN: [1]}\n", "neon: the weight of IN is of type list, not a finite number — give a number such as 0.5"),
        (f"neon: {{IN: 0x{'f' * 5000}}}\n", "neon: the weight of IN is of type int, not a finite number — give a number such as 0.5"),
        ("neon: {IN: }\n", "neon: the weight of IN is of type NoneType, not a finite number — give a number such as 0.5"),
        (
            "neon: &a [*a, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n",
            "neon: entry 1 is of type list, not a finite number — give a number such as 0.5",
        ),
        ("neon: IN=R\n", "neon: the weight of IN is 'R', a random number — give the number itself, so that the merge can be repeated"),
    ],
)
def test_refusals(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        read_blocks_file(path, NAMES, "sd1")
    assert str(caught.value) == f"{path}: {message}"


def test_an_unknown_block_is_refused_with_the_valid_names(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"blocks\.yaml: neon: unknown block 'IN12' of the base 'sd1' — valid names: BASE, TE, "):
        read_blocks_file(written(tmp_path, "neon: {IN12: 1}"), NAMES, "sd1")


def test_two_sources_of_one_name_need_a_list(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"blocks\.yaml: two sources have the same name — write a list, in the order of the sources$"):
        read_blocks_file(written(tmp_path, "neon: ALL"), ("neon", "neon"), "sd1")
    assert read_blocks_file(written(tmp_path, "[ALL, TE=0]"), ("neon", "neon"), "sd1") == ({}, {"TE": 0.0})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot be read: No such file or directory — give a YAML file that exists$"):
        read_blocks_file(tmp_path / "none.yaml", NAMES, "sd1")
    with pytest.raises(RecipeError, match=r"cannot be read: Is a directory — give a YAML file that exists$"):
        read_blocks_file(tmp_path, NAMES, "sd1")


@pytest.mark.parametrize("text", ["neon: [", b"\xff\xfe\xff", "[" * 100000, "neon: 2001-99-99", "!!python/object/apply:os.getcwd []"])
def test_what_is_no_yaml(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(RecipeError, match=r"blocks\.yaml: not readable as YAML: .+ — correct the YAML syntax$"):
        read_blocks_file(written(tmp_path, text), NAMES, "sd1")
