"""``optimize merge --kind model``, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from optimizer.cli.main import execute
from optimizer.rendering.open_model import open_model
from tests.ldm import save_single_file
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
        (["--out", "x.safetensors"], "--out x.safetensors: the first model is a folder, and so will be the result — name a folder, or a"),
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


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for seed, name in enumerate(NAMES):
        save_single_file(tuned(tiny_pipeline(), seed), tmp_path / f"{name}.safetensors")
    tuned(tiny_pipeline(), 3).save_pretrained(tmp_path / "folder")
    monkeypatch.chdir(tmp_path)
    return tmp_path


FILES = ["merge", "--kind", "model", "--sources", "anime_v2+x.safetensors", "real.v3.safetensors"]


def test_two_files_become_one(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([*FILES, "--method", "sigmoid", "--alpha", "0.4"]) == 0
    name = "anime_v2+x-real.v3_sigmoid"
    assert capsys.readouterr().out == f"anime_v2+x, real.v3: sigmoid at α = 0.4, 720 tensors\nmodel   {name}.safetensors\n"
    facts = yaml.safe_load((files / f"{name}.merge.yaml").read_text())
    assert (facts["method"], facts["alpha"], [m["name"] for m in facts["models"]]) == ("sigmoid", 0.4, ["anime_v2+x", "real.v3"])
    assert open_model(files / f"{name}.safetensors").digest not in {m["sha256"] for m in facts["models"]}
    assert not (files / f"{name}.yaml").exists()  # A1111 would take it for the model's configuration


def test_a_result_lies_on_the_disk_as_the_first_model_does(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed = ["--sources", "folder", "real.v3.safetensors", "--base", "base-1.0.safetensors", "--out"]
    assert execute(["merge", "--kind", "model", *mixed, "mixed_0.5"]) == 0
    assert (files / "mixed_0.5/model_index.json").is_file()
    (files / "there").mkdir()
    assert execute([*FILES, "--out", "there", "--json"]) == 0
    assert execute([*FILES, "--out", "merged_0.5"]) == 0
    assert (files / "merged_0.5.safetensors").read_bytes() == (files / "there/anime_v2+x-real.v3_weighted_sum.safetensors").read_bytes()
    long = [file.rename(file.with_stem(f"{file.stem}{'x' * 150}")).name for file in map(Path, FILES[-2:])]
    assert execute([*FILES[:-2], *long, long[0], "--method", "add_difference"]) == 0
    assert '"file": "there/anime_v2+x-real.v3_weighted_sum.safetensors"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "real.v3"], "--out real.v3.safetensors: is there already — name another file, or remove it"),
        (["--out", "noted"], "--out noted.merge.yaml: is there already — name another file, or remove it"),
        (["--out", "no/where"], "--out no: the directory does not exist — create it, or name another"),
        (["--method", "ties"], "--base: ties merges the changes of a base — name the model that they were trained from with --base, or"),
    ],
)
def test_what_makes_no_sense_for_files(files: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    (files / "noted.merge.yaml").write_text("")
    assert execute([*FILES, *words]) == 2
    assert capsys.readouterr().err.startswith(f"optimize: {message}")


def test_a_lora_from_a_file_and_a_folder(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["extract", "anime_v2+x.safetensors", "base-1.0.safetensors", "--rank", "2"]) == 0
    assert execute(["extract", "anime_v2+x.safetensors", "folder", "--rank", "2", "--out", "mixed.safetensors"]) == 0
    told = capsys.readouterr().out
    assert "LoRA    anime_v2+x_rank2.safetensors" in told
    assert "LoRA    mixed.safetensors" in told
