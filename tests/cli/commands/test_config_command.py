"""``optimize config``: the example and the schema are those of the options that there are."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from optimizer.cli.main import execute
from optimizer.search.config import OPTIONS, Config
from optimizer.search.config.values import option_key


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert execute(["config", *words]) == 0
    return capsys.readouterr().out


def test_the_example_is_a_file_that_config_takes(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--example")
    given = yaml.safe_load(text)
    assert list(given) == ["sources", "base", "budget"]
    assert Config.of(**given).search.budget == given["budget"]
    assert max(map(len, text.splitlines())) <= 120


def test_what_the_example_comments_out_are_all_other_options_with_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--example")
    shown = yaml.safe_load(re.sub(r"^#(?=[a-z_]+: )", "", text, flags=re.MULTILINE))
    assert shown.keys() == {option_key(name) for name in OPTIONS}
    defaults = Config.of(**{name: value for name, value in shown.items() if value is not None})
    assert defaults == Config.of(sources=shown["sources"], base=shown["base"], budget=shown["budget"])


def test_the_schema_names_every_option_with_its_type_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(printed(capsys, "--schema"))
    assert schema["properties"].keys() == {option_key(name) for name in OPTIONS}
    assert not schema["additionalProperties"]
    assert schema["properties"]["budget"]["type"] == "integer"
    assert schema["properties"]["dtype"]["enum"] == ["fp16", "bf16", "fp32"]
    assert all(declared["description"] for declared in schema["properties"].values())


@pytest.mark.parametrize("words", [[], ["--schema", "--example"]])
def test_one_of_both_is_needed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["config", *words]) == 2
    assert capsys.readouterr().err == "optimize: optimize config: needs --schema or --example — give one of them\n"
