"""``optimize merge --kind model``, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from optimizer.checkpoints.open import open_model
from optimizer.cli.main import execute
from tests.ldm import save_single_file
from tests.merging.models.test_full_models import NAMES, tensors, tuned
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
        (["--method", "mixup"], "--method: there is no method 'mixup' for models — choose linear, weighted_sum, sigmoid, inv_sigmoid, a"),
        (["--rank", "8"], "--rank: is for LoRAs — leave it out"),
        (["--weights", "1", "1"], "--weights: the weights of models add up to 1, these to 2 — give weights that do, or with --base"),
        (["--weights", "1", "1", "--method", "sigmoid"], "--weights: sigmoid takes --alpha — give one number with --alpha"),
        (["--method", "linear", "--alpha", "0.3"], "--alpha: linear takes --weights — give one weight a model, or choose weighted_sum"),
        (["--blocks", "IN=0.5", "OUT=1"], "--blocks: 2 given for one α — give one: it says how much of α holds in which block"),
        (["--blocks", "DOUBLE_00=0.5"], "--blocks: unknown block 'DOUBLE_00'"),
        (["--blocks", "IN=0.5", "--base", "base-1.0"], "--blocks: 1 given for 2 models — give one a model, in the same order"),
        (["--base", "base-1.0", "--method", "sigmoid"], "--method: sigmoid takes no base — choose one of docs/methods.md, or leave"),
        (["--alpha", "1.5"], "--alpha: α is 1.5 — give a number from 0 to 1"),
        (["--out", "real.v3"], "--out real.v3: is there already — name another folder, or remove it"),
        (["--out", "no/where"], "--out no: the directory does not exist — create it, or name another"),
        (["--out", "x.safetensors"], "--out x.safetensors: the first model is a folder, and so will be the result — name a folder, or a"),
        (["--base", "base-1.0", "--alpha", "0.5"], "--alpha: linear takes --weights — give one weight a model, or leave --base out"),
        (["--base", "base-1.0", "--weights", "1"], "--weights: 1 given for 2 models — give one a model"),
        (
            ["--base", "base-1.0", "--method", "routed"],
            "--method: routed applies a router to the factors of LoRAs, which models do not have",
        ),
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


def both(here: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    return tensors(here / "anime_v2+x"), tensors(here / "real.v3"), tensors(here / name)


def test_alpha_may_differ_from_block_to_block(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["merge", "--kind", "model", "--sources", "anime_v2+x", "real.v3", "--blocks", "IN=0.5,TE=0", "--dtype", "fp32"]
    assert execute([*words, "--method", "sigmoid", "--alpha", "0.3", "--out", "mixed"]) == 0
    assert "linear at 0.784 : 0.216" in capsys.readouterr().out
    a, b, found = both(here, "mixed")
    for name, tensor in found.items():
        share = 0.0 if name.startswith("text_encoder") else 0.108 if name.startswith(("unet.down_blocks", "unet.conv_in")) else 0.216
        torch.testing.assert_close(tensor, a[name] + share * (b[name] - a[name]), rtol=0, atol=1e-6)
    three = ["merge", "--kind", "model", "--sources", "anime_v2+x", "real.v3", "base-1.0", "--method", "add_difference", "--alpha", "0.8"]
    assert execute([*three, "--blocks", "OUT=0", "--out", "added", "--dtype", "fp32"]) == 0
    a, b, found = both(here, "added")
    c = tensors(here / "base-1.0")
    for name, tensor in found.items():
        share = 0.0 if name.startswith("unet.up_blocks") else 0.8
        torch.testing.assert_close(tensor, a[name] + share * (b[name] - c[name]), rtol=0, atol=1e-6)


def test_three_models_by_weights(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--sources", "anime_v2+x", "real.v3", "base-1.0", "--weights", "0.5", "0.3", "0.2", "--out", "mixed", "--dtype", "fp32"]
    assert execute(["merge", "--kind", "model", *words]) == 0
    assert "linear at 0.5 : 0.3 : 0.2, 720 tensors" in capsys.readouterr().out
    a, b, found = both(here, "mixed")
    c = tensors(here / "base-1.0")
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, 0.5 * a[name] + 0.3 * b[name] + 0.2 * c[name], rtol=0, atol=1e-6)


def test_a_merge_record_gives_the_same_bytes_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair, base = ["--sources", "anime_v2+x", "real.v3"], ["--base", "base-1.0"]
    jobs = {
        "sigmoid": ([], ["--method", "sigmoid", "--alpha", "0.4"]),
        "ties": (base, ["--method", "ties", "--density", "0.3", "--weights", "0.7", "0.6", "--dtype", "fp16"]),
        "dare": (base, ["--method", "dare_linear", "--density", "0.5", "--seed", "3", "--blocks", "ALL", "IN=0.5"]),
        "sum": ([], ["--weights", "0.25", "0.75"]),
    }
    for name, (more, words) in jobs.items():
        assert execute(["merge", "--kind", "model", *pair, *more, *words, "--out", name]) == 0
        assert execute(["merge", f"{name}/merge.yaml", *pair, *more, "--out", f"{name}-again"]) == 0
        for file in sorted(path for path in (here / name).rglob("*") if path.is_file()):
            assert file.read_bytes() == (here / f"{name}-again" / file.relative_to(here / name)).read_bytes()
    capsys.readouterr()
    for words, message in (
        (["--sources", "real.v3", "anime_v2+x"], "--sources: real.v3 has SHA-256 "),
        (["--sources", "anime_v2+x", "real.v3", "base-1.0"], "--sources: sigmoid/merge.yaml was made of 2 (anime_v2+x, real.v3), 3 given"),
        ([*pair, "--base", "base-1.0"], "--base: sigmoid/merge.yaml was made of 0 (none), 1 given — give the same, in the same order"),
        ([*pair, "--alpha", "0.5"], "--alpha: sigmoid/merge.yaml says it already — leave it out, or leave the file out"),
        ([], "--sources: 0 given — give two to five models, those that were merged, in the same order: diffusers folders or"),
    ):
        assert execute(["merge", "sigmoid/merge.yaml", *words, "--out", "never"]) in (1, 2)
        assert capsys.readouterr().err.startswith(f"optimize: {message}")
    (here / "broken.yaml").write_text("kind: model\nmodels: 3\n")
    assert execute(["merge", "broken.yaml", *pair]) in (1, 2)
    assert "broken.yaml: cannot be understood" in capsys.readouterr().err
    (here / "lora.yaml").write_text("method: linear\nweights: [1, 1]\n")
    assert execute(["merge", "--kind", "model", "lora.yaml", *pair]) == 2
    assert "lora.yaml: is a recipe for LoRAs — name the models with --sources" in capsys.readouterr().err
    assert not (here / "never").exists()
