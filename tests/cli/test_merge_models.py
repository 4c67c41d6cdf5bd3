"""``optimize merge --kind model``, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from optimizer.cli.main import execute
from tests.merging.test_full_models import NAMES, tuned
from tests.tiny import tiny_pipeline


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for seed, name in enumerate(NAMES):
        tuned(tiny_pipeline(), seed).save_pretrained(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_models_become_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["merge", "--kind", "model", "--sources", "anime_v2+x", "real.v3", "--method", "sigmoid", "--alpha", "0.4"]) == 0
    assert capsys.readouterr().out == ("anime_v2+x, real.v3: sigmoid at α = 0.4, 720 tensors\nmodel   anime_v2+x-real.v3_sigmoid\n")
    facts = yaml.safe_load((here / "anime_v2+x-real.v3_sigmoid/merge.yaml").read_text())
    assert (facts["method"], facts["alpha"], [m["name"] for m in facts["models"]]) == ("sigmoid", 0.4, ["anime_v2+x", "real.v3"])


def test_changes_of_a_base_and_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--base", "base-1.0", "--method", "ties", "--density", "0.3", "--weights", "0.7", "0.6", "--out", "out", "--dtype", "fp16"]
    assert execute(["merge", "--kind", "model", "--sources", "anime_v2+x", "real.v3", *words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["recipe"]["density"], facts["recipe"]["weights"], facts["dtype"], facts["folder"]) == (0.3, [0.7, 0.6], "F16", "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "ties"], "--base: ties merges the changes of a base — name the model that they were trained from with --base, or"),
        (["--method", "mixup"], "--method: there is no method 'mixup' for models — choose weighted_sum, sigmoid, inv_sigmoid, add_diff"),
        (["--rank", "8"], "--rank: is for LoRAs — leave it out"),
        (["--weights", "1", "1"], "--weights: weighted_sum takes --alpha — give one number with --alpha"),
        (["--alpha", "1.5"], "--alpha: α is 1.5 — give a number from 0 to 1"),
        (["--out", "real.v3"], "--out real.v3: is there already — name another folder, or remove it"),
        (["--out", "no/where"], "--out no: the directory does not exist — create it, or name another"),
        (["--base", "base-1.0", "--alpha", "0.5"], "--alpha: linear takes --weights — give one weight a model, or leave --base out"),
        (["--base", "base-1.0", "--weights", "1"], "--weights: 1 given for 2 models — give one a model"),
        (["--base", "base-1.0", "--method", "svd"], "--method: svd cuts LoRAs to a rank, which models do not have — choose linear"),
    ],
)
def test_what_makes_no_sense(here: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert execute(["merge", "--kind", "model", "--sources", "anime_v2+x", "real.v3", *words]) == 2
    assert capsys.readouterr().err.startswith(f"optimize: {message}")


def test_loras_have_no_alpha(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["merge", "--sources", "demo:neon", "demo:octopus", "--alpha", "0.4"]) == 2
    assert capsys.readouterr().err == "optimize: --alpha: LoRAs have no alpha to merge at — give --weights, or --kind model\n"
