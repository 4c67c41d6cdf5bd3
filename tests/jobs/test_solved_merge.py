"""Merges that are solved on the live base model, by the command: a file that its recipe replays without the base, and clear refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from optimizer.adapters import load_adapter, save_adapter
from optimizer.calibration.prompts import calibration_prompts
from optimizer.cli.main import execute
from optimizer.jobs.base_renderer import Drawing
from optimizer.jobs.merge_options import MergeOptions
from optimizer.jobs.merge_plan import MergePlan, plan
from optimizer.merging import Recipe, correction_of
from optimizer.rendering import PromptSet, Renderer, RenderSettings, Subject, Vocabulary, load_pipeline
from tests.calibration.test_solving import random_adapter
from tests.tiny import tiny_pipeline, tiny_xl_pipeline


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and two sources for it."""
    folder = tmp_path_factory.mktemp("solved")
    tiny_pipeline().save_pretrained(folder / "base")
    renderer = Renderer(load_pipeline(folder / "base", device="cpu", dtype=torch.float32), RenderSettings())
    for seed, name in enumerate(("hero", "ink")):
        adapter = random_adapter(name, renderer, "sd1", 2, seed)
        save_adapter(adapter, folder / f"{name}.safetensors", dialect="kohya", dtype=torch.float32)
    return folder


def sources(place: Path) -> list[str]:
    return ["--sources", str(place / "hero.safetensors"), str(place / "ink.safetensors")]


def test_a_solved_merge_is_written_and_replayed_without_the_base(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("optimizer.jobs.solved_merge.prompts_to_solve_on", few)
    monkeypatch.setattr("optimizer.jobs.solved_merge.RenderSettings", lambda *_: RenderSettings(steps=2, guidance=2.0, resolution=32))
    out = tmp_path / "merged.safetensors"
    arguments = ["--base", str(place / "base"), "--method", "distill", "--train-steps", "2", "--out", str(out), "--device", "cpu"]
    strip = tmp_path / "strip.png"
    assert execute(["merge", *sources(place), *arguments, "--json", "--preview", str(strip)]) == 0
    with Image.open(strip) as picture:
        above, below = (np.asarray(picture.crop((0, top, picture.width, top + picture.height // 2))) for top in (0, picture.height // 2))
    assert above.std() > 1
    assert np.abs(above.astype(int) - below.astype(int)).mean() > 0.1
    told = capsys.readouterr()
    assert "solving distill holds beside drawing: " in told.err
    assert "trajectories (6 points) in the computer's memory; gradients of 16 points at once" in told.err
    facts = json.loads(told.out)
    assert (facts["solved"], facts["prompts"]) == ("distill", 3)
    assert facts["loss"] > 0
    recipe = str(out.with_suffix(".yaml"))
    again, anew = tmp_path / "again" / "merged.safetensors", tmp_path / "anew" / "merged.safetensors"
    for path in (again, anew):
        path.parent.mkdir()
    assert execute(["merge", recipe, "--out", str(again)]) == 0
    assert again.read_bytes() == out.read_bytes()
    assert execute(["merge", recipe, "--out", str(anew), "--resolve", "--base", str(place / "base"), "--device", "cpu"]) == 0
    assert anew.read_bytes() == out.read_bytes()
    capsys.readouterr()
    assert execute(["merge", recipe, "--train-steps", "3"]) == 2
    refused = " ".join(capsys.readouterr().err.split())
    assert "--train-steps: the recipe's router was solved with 2, not 3 — add --resolve and --base to solve it again" in refused
    assert execute(["merge", recipe, "--correction", "0"]) == 2
    assert "--correction: the recipe's router was solved with 16, not 0 — add --resolve" in " ".join(capsys.readouterr().err.split())
    assert execute(["merge", recipe, "--weights", "1", "0.5", "--out", str(tmp_path / "lighter.safetensors")]) == 0
    assert (tmp_path / "lighter.safetensors").read_bytes() != out.read_bytes()


def test_a_correction_of_rank_0_is_none(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.jobs.solved_merge.prompts_to_solve_on", few)
    monkeypatch.setattr("optimizer.jobs.solved_merge.RenderSettings", lambda *_: RenderSettings(steps=2, guidance=2.0, resolution=32))
    arguments = ["--base", str(place / "base"), "--method", "distill", "--train-steps", "2", "--device", "cpu"]
    ranks, recipes = {}, {}
    for rank, more in ((16, []), (0, ["--correction", "0"])):
        out = tmp_path / str(rank) / "merged.safetensors"
        out.parent.mkdir()
        assert execute(["merge", *sources(place), *arguments, *more, "--out", str(out)]) == 0
        recipes[rank] = yaml.safe_load(out.with_suffix(".yaml").read_text("utf-8"))
        ranks[rank] = {path: factors.rank for path, factors in load_adapter(out).modules.items()}
    assert recipes[16]["correction"] == 16
    assert "correction" not in recipes[0]
    assert set(ranks[0].values()) == {4}
    assert {path for path, rank in ranks[16].items() if rank > 4} == set(
        correction_of([load_adapter(place / "ink.safetensors")], 16).modules
    )


def test_an_accelerator_and_another_model_are_solved_with_and_recorded(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("optimizer.jobs.solved_merge.prompts_to_solve_on", few)
    renderer = Renderer(tiny_pipeline(), RenderSettings())
    lcm = save_adapter(random_adapter("lcm", renderer, "sd1", 2, 7), tmp_path / "lcm.safetensors", dialect="kohya", dtype=torch.float32)
    tiny_pipeline(seed=3).save_pretrained(tmp_path / "turbo")
    common = ["merge", *sources(place), "--base", str(place / "base"), "--method", "ssr", "--steps", "2", "--device", "cpu"]
    more: dict[str, list[str]] = {
        "plain": ["--guidance", "2"],
        "calm": ["--guidance", "0"],
        "with": ["--guidance", "2", "--with", f"{lcm}:0.5"],
        "turbo": ["--guidance", "2", "--eval-base", str(tmp_path / "turbo")],
    }
    recipes: dict[str, dict[str, Any]] = {}
    for name, arguments in more.items():
        assert execute([*common, *arguments, "--out", str(tmp_path / f"{name}.safetensors")]) == 0
        recipes[name] = yaml.safe_load((tmp_path / f"{name}.yaml").read_text("utf-8"))
    out = capsys.readouterr().out
    assert out.count(", with lcm at 0.5, which the file does not hold: load it beside") == 1
    assert len({recipe["calibration"] for recipe in recipes.values()}) == len(more)
    beside = {"name": "lcm", "file": "lcm.safetensors", "sha256": load_adapter(lcm).sha256, "weight": 0.5}
    assert {name: recipe["setup"].get("drawn_with") for name, recipe in recipes.items()} == {
        "plain": None,
        "calm": None,
        "with": {"accelerators": [beside], "steps": 2, "guidance": 2.0},
        "turbo": {"base": "turbo", "steps": 2, "guidance": 2.0},
    }
    assert "with lcm at 0\\.5 beside it" in (tmp_path / "with.md").read_text("utf-8")
    assert "base_model: base\n" in (tmp_path / "turbo.md").read_text("utf-8")
    assert "were drawn by `turbo`, not by the model" in (tmp_path / "turbo.md").read_text("utf-8")
    again = tmp_path / "again" / "with.safetensors"
    again.parent.mkdir()
    assert execute(["merge", str(tmp_path / "with.yaml"), "--out", str(again)]) == 0
    assert again.read_bytes() == (tmp_path / "with.safetensors").read_bytes()
    assert yaml.safe_load(again.with_suffix(".yaml").read_text("utf-8"))["setup"]["drawn_with"] == recipes["with"]["setup"]["drawn_with"]
    capsys.readouterr()
    assert execute(["merge", str(tmp_path / "with.yaml"), "--with", str(lcm)]) == 2
    assert "--with: the recipe's router is solved already — add --resolve" in " ".join(capsys.readouterr().err.split())
    resolve = ["merge", str(tmp_path / "with.yaml"), "--resolve", *common[4:6], "--steps", "2", "--guidance", "2", "--device", "cpu"]
    assert execute([*resolve, "--out", str(tmp_path / "anew.safetensors")]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "the recipe's router was solved with lcm at 0.5 beside the base model, and now is not; --eval-base and --with say so" in told
    anew = yaml.safe_load((tmp_path / "anew.yaml").read_text("utf-8"))
    assert anew["calibration"] == recipes["plain"]["calibration"]
    assert "drawn_with" not in anew["setup"]


def test_who_gives_an_accelerator_and_no_steps_is_told(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_xl_pipeline().save_pretrained(tmp_path / "xl")
    renderer = Renderer(tiny_pipeline(), RenderSettings())
    lcm = save_adapter(random_adapter("lcm", renderer, "sd1", 2, 7), tmp_path / "lcm.safetensors", dialect="kohya", dtype=torch.float32)
    asked = ["merge", *sources(place), "--base", str(place / "base"), "--method", "ssr", "--device", "cpu", "--with", str(lcm)]
    for more, message in {
        ("--eval-base", str(tmp_path / "xl")): "xl: is of SDXL, the base model is of SD 1.x and 2.x — name a model of the base",
        ("--eval-base", "fake:"): "only one of base model and model to draw with is a stand-in",
        ("--with", str(place / "ink.safetensors")): "is the same file as the source ink",
        ("--guidance", "-1"): "--guidance",
    }.items():
        assert execute([*asked, *more]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    job, options, said = *_planned(place, lcm), list[str]()
    Drawing(options.base, device="cpu", accelerators=job.accelerators).renderer(job.adapters, said.append)
    assert said[-1] == (
        "lcm: accelerators want few steps and a guidance near 1, such as --steps 8 --guidance 1; "
        "without --steps, pictures are drawn in 20 steps, with guidance 7"
    )


def _planned(place: Path, lcm: Path) -> tuple[MergePlan, MergeOptions]:
    files = (str(place / "hero.safetensors"), str(place / "ink.safetensors"))
    options = MergeOptions(sources=files, base=str(place / "base"), method="ssr", device="cpu", with_=(str(lcm),))
    return plan(None, options), options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--base: distill solves the merge on the base model, and none is given — name the diffusers folder or the file"),
        (["--base", "fake:"], "--base: distill solves the merge on the base model, and none is given"),
        (["--base", "base", "--density", "0.5"], "the method 'distill' does not read density (got 0.5)"),
        (["--method", "ties", "--preview", "strip.png"], "--preview: the method 'ties' has no router to solve — leave it out, or name"),
        (["--kind", "model", "--prompts", "words.yaml"], "--prompts: is for LoRAs — leave it out"),
        (["--method", "ties", "--guidance", "0"], "--guidance: the method 'ties' has no router to solve — leave it out, or name"),
        (["--method", "ties", "--with", "lcm.safetensors"], "--with: the method 'ties' has no router to solve — leave it out, or name"),
        (["--kind", "model", "--guidance", "0"], "--guidance: is for LoRAs — leave it out"),
        (["--kind", "model", "--eval-base", "turbo"], "--eval-base: is for LoRAs — leave it out"),
        (["--method", "ties", "--resolve"], "--resolve: the method 'ties' has no router to solve — leave it out, or name"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    place: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimizer.jobs.base_renderer.load_renderer", lambda *_, **__: pytest.fail("the base was loaded"))
    method = [] if "--method" in arguments else ["--method", "distill"]
    assert execute(["merge", *sources(place), *method, *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def few(subjects: Sequence[Subject], words: Vocabulary, recipe: Recipe) -> PromptSet:
    """One prompt of each kind."""
    return calibration_prompts(subjects, words, recipe.seed, own=1, joint=1)
