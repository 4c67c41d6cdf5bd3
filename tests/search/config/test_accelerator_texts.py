"""What ``--with`` and ``--eval-base`` say: files, weights and models, and what cannot be said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optimizer.errors import UsageError
from optimizer.search.config import Config, checked
from optimizer.search.config.accelerators import AcceleratorText, parse_accelerators


@pytest.mark.parametrize(
    ("text", "file", "weight"),
    [
        ("lcm.safetensors", "lcm.safetensors", 1.0),
        ("lcm.safetensors:0.8", "lcm.safetensors", 0.8),
        ("lcm.safetensors:-1e-1", "lcm.safetensors", -0.1),
        ("C:\\lcm.safetensors:2", "C:\\lcm.safetensors", 2.0),
        ("C:\\lcm.safetensors", "C:\\lcm.safetensors", 1.0),
        ("demo:neon", "demo:neon", 1.0),
        ("demo:neon:0.5", "demo:neon", 0.5),
        ("demo:8", "demo:8", 1.0),
        ("lcm.safetensors:half", "lcm.safetensors:half", 1.0),
    ],
)
def test_a_number_behind_the_last_colon_is_the_weight(text: str, file: str, weight: float) -> None:
    assert parse_accelerators([text]) == (AcceleratorText(file, weight),)
    assert parse_accelerators([str(AcceleratorText(file, weight))]) == (AcceleratorText(file, weight),)


def test_a_file_of_that_name_has_no_weight(tmp_path: Path) -> None:
    (tmp_path / "lcm:2").touch()
    (found,) = parse_accelerators([str(tmp_path / "lcm:2")])
    assert found == AcceleratorText(str(tmp_path / "lcm:2"))
    (tmp_path / "lcm:2").unlink()
    assert parse_accelerators([str(found)]) == (found,)  # as on another machine, where it has another place


@pytest.mark.parametrize("text", ["", ":1", "lcm:0", "lcm:nan", "lcm:-inf"])
def test_a_weight_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked(Config.of(sources=("a", "b"), base="sd", with_=(text,)))
    remedy = "give a LoRA file, and after a colon a weight other than 0, such as lcm.safetensors:0.8"
    assert str(caught.value) == f"--with: got {text!r} — {remedy}"


def test_places_are_saved_as_absolute_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "turbo").mkdir()
    found = Config.of(sources=("a", "b"), base="sd", eval_base="turbo", with_=["lcm.safetensors:0.5", "demo:neon", "x.safetensors:1.0"])
    inputs = found.resolved().inputs
    assert inputs.with_ == (f"{tmp_path}/lcm.safetensors:0.5", "demo:neon", f"{tmp_path}/x.safetensors")
    assert (inputs.eval_base, inputs.drawing_base, inputs.demo) == (str(tmp_path / "turbo"), str(tmp_path / "turbo"), False)
    assert Config.of(**{"with": ("a",)}).inputs.with_ == ("a",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "sd", "eval_base": "sd"}, "--eval-base sd: is the base model itself — leave it out"),
        (
            {"base": "sd", "eval_base": "fake:"},
            "--eval-base fake:: only one of base model and model to draw with is a stand-in — give two models, or fake: to both",
        ),
        ({"base": "fake:", "eval_base": "fake:speed=1"}, "--base: a fake base has no setting 'speed' — write fake: with any of "),
        ({"eval_base": "turbo"}, "a: does not exist"),
    ],
)
def test_models_that_cannot_draw_for_a_base_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        checked(Config.of(sources=("a", "b"), **options))
    assert str(caught.value).startswith(message)
