"""Merges that are solved on the live base model, by the command: a file that its recipe replays without the base, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from optimizer.adapters import save_adapter
from optimizer.cli.main import execute
from optimizer.rendering import Renderer, RenderSettings, load_pipeline
from tests.calibration.test_solving import random_adapter
from tests.tiny import tiny_pipeline


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
    monkeypatch.setattr("optimizer.jobs.solved_merge._OWN", 1)
    monkeypatch.setattr("optimizer.jobs.solved_merge._JOINT", 1)
    monkeypatch.setattr("optimizer.jobs.solved_merge.RenderSettings", lambda: RenderSettings(steps=2, guidance=2.0, resolution=32))
    out = tmp_path / "merged.safetensors"
    arguments = ["--base", str(place / "base"), "--method", "distill", "--solve-steps", "2", "--out", str(out), "--device", "cpu"]
    assert execute(["merge", *sources(place), *arguments, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["solved"], facts["prompts"]) == ("distill", 3)
    assert facts["loss"] > 0
    again = tmp_path / "again" / "merged.safetensors"
    again.parent.mkdir()
    assert execute(["merge", str(out.with_suffix(".yaml")), "--out", str(again)]) == 0
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--base: distill solves the merge on the base model, and none is given — name the diffusers folder or the file"),
        (["--base", "fake:"], "--base: distill solves the merge on the base model, and none is given"),
        (["--base", "base", "--density", "0.5"], "the method 'distill' does not read density (got 0.5)"),
        (["--weights", "1", "1"], "--weights: distill finds the weights itself — leave it out"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    place: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimizer.jobs.solved_merge.load_renderer", lambda *_, **__: pytest.fail("the base was loaded"))
    assert execute(["merge", *sources(place), "--method", "distill", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_recipe_is_not_solved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["merge", str(tmp_path / "old.yaml"), "--method", "ssr"]) == 2
    assert "ssr is solved from the sources — give --sources and --base instead of the recipe" in " ".join(capsys.readouterr().err.split())
