"""The main job on the demo world: by name, by files, from Python, and the file that it ships."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from optimizer import Study, optimize
from optimizer.adapters import load_adapter
from optimizer.cli.main import execute
from optimizer.rendering import Prompt, Renderer, RenderSettings
from studies import DEMO_BASE, load_summary
from studies.demo.world import demo_base
from studies.report.page import loading_snippet
from tests.search.runs import trials

SMALL: dict[str, Any] = {"budget": 1, "own": 1, "joint": 1, "confirm": 1, "finalists": 1, "steps": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The shortest run on the demo world, from Python."""
    return optimize(["demo:neon", "demo:robot"], out=tmp_path_factory.mktemp("demo") / "study", **SMALL)


def test_naming_every_file_gives_the_same_study(study: Study, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert execute(["demo"]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:2] == ["optimize", "--sources"]
    small = [text for name, value in (SMALL | {"out": tmp_path}).items() for text in (f"--{name}", str(value))]
    assert execute([*words[1 : words.index("--steps")], "--guidance", words[-1], *small]) == 0
    summary = load_summary(tmp_path)
    assert trials(summary.trials) == trials(study.trials)
    assert {source.base for source in (*summary.sources, *study.summary.sources)} == {DEMO_BASE}


def test_the_snippets_of_card_and_report_run_as_they_stand(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    assert study.best is not None
    card = re.search("```python\n(.*?)```", (study.best.parent / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert card
    for folder, code in ((study.best.parent, card[1]), (study.directory, loading_snippet(study.summary))):
        monkeypatch.chdir(folder)
        names: dict[str, Any] = {}
        exec(code, names)
        assert names["image"].size == (64, 64)


def test_plain_diffusers_loads_the_shipped_file_and_draws_the_same_pictures(study: Study) -> None:
    assert study.best is not None
    pipeline = StableDiffusionPipeline.from_pretrained(demo_base(), local_files_only=True, safety_checker=None, dtype=torch.float32)
    prompts = [Prompt("rivet, left, snow", 3), Prompt("a red ball, right, night", 4)]
    plain, renderer = (Renderer(pipeline, RenderSettings(steps=4, guidance=4.0)) for _ in range(2))
    ours = renderer.render(prompts, load_adapter(study.best))
    base = renderer.render(prompts)
    pipeline.load_lora_weights(study.best.parent, weight_name=study.best.name)
    theirs = plain.render(prompts)
    assert (ours.int() - theirs.int()).abs().max() <= 2
    assert (ours.int() - base.int()).abs().max() > 40
