"""The configuration: what is refused, how it is saved, and what it resolves to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optimizer.errors import UsageError
from optimizer.search.config import Config, checked
from optimizer.search.results.summary import command_line

TWO = ("a.safetensors", "b.safetensors")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("8h", 28800), ("1h30m", 5400), ("1.5h", 5400), (7.5, 7.5)]
)
def test_times(text: object, seconds: float) -> None:
    assert Config.of(timeout=text).search.timeout == seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0}, "--budget: the budget is 0 — give the number of recipes to try, 1 or more"),
        ({"budget": -3}, "--budget: the budget is -3 — give the number of recipes to try, 1 or more"),
        ({"sources": ()}, "--sources: no source given — give two to five LoRA files; one alone has nothing to be merged with"),
        ({"sources": TWO[:1]}, "--sources: 1 source given — give two to five LoRA files; one alone has nothing to be merged with"),
        ({"sources": TWO * 3}, "--sources: 6 sources given — merge at most five, or add --force"),
        ({"roles": ("style",)}, "--roles: 1 given for 2 sources — give one per source, in the same order"),
        ({"triggers": ("a", "b", "c")}, "--triggers: 3 given for 2 sources — give one per source, in the same order"),
        (
            {"base": "", "sources": (__file__, __file__)},
            "--base: no base model given — give the diffusers folder of the model that the sources were trained on",
        ),
        (
            {"sources": ("demo:neon", "hat"), "base": ""},
            "hat: does not exist — check the path; a source that ships with this package is written demo:NAME, see optimize demo",
        ),
    ],
)
def test_what_makes_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked(Config.of(**{"sources": TWO, "base": "sd"} | options))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budgett": 1}, "--budgett: there is no such option — see optimize --help"),
        ({"budget": "many"}, "--budget: got 'many' — it should be a valid integer, unable to parse string as an integer"),
        ({"roles": ("style", "wizard")}, "--roles: got 'wizard' — it should be 'style', 'character' or 'concept'"),
        ({"timeout": "soon"}, "--timeout: got 'soon' — it should be a valid number, unable to parse string as a number"),
        ({"timeout": 0}, "--timeout: got 0 — it should be greater than 0"),
        ({"resolution": 100}, "--resolution: got 100 — it should be a multiple of 8"),
        ({"dtype": "int8"}, "--dtype: got 'int8' — it should be 'fp16', 'bf16' or 'fp32'"),
    ],
)
def test_what_is_no_configuration(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config.of(**options)
    assert str(caught.value) == message


def test_it_is_saved_and_read_back(tmp_path: Path) -> None:
    config = Config.of(sources=TWO, base="sd", budget=7, triggers=("", "zig"), timeout="2h", methods=("linear",), rank=8, out=tmp_path)
    (tmp_path / "study.yaml").write_text(config.to_yaml())
    assert Config.from_yaml(tmp_path / "study.yaml") == config


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("budget: [", "cannot be read: while parsing"),
        ("- 1", "cannot be used: got [1]"),
        ("budgett: 1", "cannot be used: --budgett: there is no such option"),
    ],
)
def test_a_saved_one_that_was_damaged(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        Config.from_yaml(tmp_path / "study.yaml")
    assert part in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'study.yaml'}: the configuration ")
    assert "\n" not in str(caught.value)


def test_paths_become_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sd").mkdir()
    found = Config.of(
        sources=("demo:neon", "x/../a.safetensors"), base="sd", embedder="ViT-B-32/x", prompts="w.yaml", vae="v", out="o"
    ).resolved()
    assert found.inputs.sources == ("demo:neon", str(tmp_path / "a.safetensors"))
    assert found.inputs.base == str(tmp_path / "sd")
    assert (found.protocol.embedder, found.protocol.prompts) == ("ViT-B-32/x", str(tmp_path / "w.yaml"))
    assert (found.loading.vae, found.loading.decoder, found.places.out) == (str(tmp_path / "v"), "", tmp_path / "o")
    assert found.resolved() == found
    assert Config.of(base="some/model").resolved().inputs.base == "some/model"
    several = Config.of(embedder="ViT-B-32/x, sd").resolved()
    assert several.protocol.embedder == f"ViT-B-32/x,{tmp_path / 'sd'}"
    assert several.resolved() == several


def test_the_command_that_repeats_a_run() -> None:
    config = Config.of(sources=("a b.safetensors", "demo:x"), base="sd", triggers=("", "z"), force=True, timeout="1m", out="o")
    assert command_line(config) == "optimize --sources 'a b.safetensors' demo:x --base sd --out o --triggers '' z --timeout 60.0 --force"
