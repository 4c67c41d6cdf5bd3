"""The main job from files to files: what it leaves behind is complete, and is what was scored."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from PIL import Image

from optimizer import Recipe, Study, load_adapter, optimize
from optimizer.adapters.files.container import read_header
from optimizer.export import RECIPE_KEY
from optimizer.merging import Merger
from optimizer.rendering import Prompt
from optimizer.search.evaluation.evaluator import Evaluator
from tests.studio import Studio


@pytest.fixture(scope="module")
def study(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return optimize(**studio.options(out=tmp_path_factory.mktemp("main") / "study"))


def test_the_directory_is_complete(study: Study) -> None:
    folder = study.directory
    names = {path.name for path in folder.iterdir() if not path.name.startswith("journal.log.")}
    assert names == {
        *("study.yaml", "journal.log", "evaluations", "images", "trials.csv", "trials.parquet", "summary.json", "report.html", "best"),
        "sheets",
    }
    assert study.best is not None
    assert {path.name for path in (folder / "best").iterdir()} == {study.best.name, "recipe.yaml", "README.md", "preview.webp"}
    assert {path.name for path in (folder / "images").iterdir()} == {"baselines", "trials", "confirmation"}
    assert {path.name for path in (folder / "images/baselines").iterdir()} == {"base", "alba", "bruno"}
    assert len(list((folder / "evaluations").glob("*.json"))) == len(study.trials) == 4 + 3
    assert study.complete
    assert study.summary.finished is not None
    assert study.summary.resume_command == ""


def test_the_first_trials_are_the_baselines(study: Study) -> None:
    assert [t.label for t in study.trials] == ["alba alone", "bruno alone", "stack", "naive", "", "", ""]
    weights = [t.evaluation.recipe["weights"] for t in study.trials[:4] if t.evaluation]
    assert weights == [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]]


def test_tables_and_evaluations_agree(study: Study) -> None:
    frame = pd.read_parquet(study.directory / "trials.parquet")
    with (study.directory / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [t.evaluation.score for t in study.trials if t.evaluation]
    assert list(frame["score"]) == scores
    assert [float(row["score"]) for row in rows] == scores


def test_every_picture_that_is_named_is_there_and_lossless(study: Study) -> None:
    named = [name for t in study.trials if t.evaluation for name in t.evaluation.images]
    named += [name for column in study.summary.columns for name in column.files]
    assert len(named) == 6 * 3 + len(study.summary.columns) * 3  # of the trials, baselines and the two best
    for name in named:
        with Image.open(study.directory / name) as picture:
            assert (picture.format, picture.size) == ("PNG", (16, 16))


def test_the_saved_configuration_means_the_same_from_any_folder(study: Study, studio: Studio) -> None:
    saved = yaml.safe_load((study.directory / "study.yaml").read_text())
    assert saved["sources"] == [str(path) for path in studio.sources[:2]]
    assert Path(saved["base"]).is_absolute()
    assert (saved["budget"], saved["triggers"], saved["seed"]) == (3, ["", "zig"], 0)


def test_the_file_is_the_merge_that_was_scored(study: Study, studio: Studio) -> None:
    assert study.best is not None
    recipe = Recipe.from_yaml((study.directory / "best/recipe.yaml").read_text())
    shipped = study.summary.best
    assert shipped is not None
    assert shipped.evaluation is not None
    assert recipe.hash == shipped.evaluation.recipe_hash
    expected = Merger([load_adapter(path) for path in studio.sources[:2]]).merge(recipe, dtype=torch.float16)
    found = load_adapter(study.best)
    assert found.modules.keys() == expected.modules.keys()
    for path, factors in expected.modules.items():
        torch.testing.assert_close(found.modules[path].delta(), factors.delta(), rtol=1e-5, atol=1e-8)
    assert Recipe.from_json(read_header(study.best).metadata[RECIPE_KEY]) == recipe


def test_diffusers_renders_the_confirmed_pictures_from_the_file(study: Study, studio: Studio) -> None:
    assert study.best is not None
    pipe = StableDiffusionPipeline.from_pretrained(studio.base, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    best = next(column for column in study.summary.columns if column.kind == "best")
    base = next(column for column in study.summary.columns if column.kind == "base")

    def distance(files: tuple[str, ...]) -> float:
        total = []
        for prompt, name in zip(study.summary.prompts, files, strict=True):
            noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(Prompt(prompt.text, prompt.seed).noise_seed))
            picture = pipe(prompt.text, latents=noise, num_inference_steps=2, guidance_scale=2.0, output_type="np").images[0] * 255
            total.append(np.abs(picture - np.asarray(Image.open(study.directory / name), dtype=np.float32)).mean())
        return float(np.mean(total))

    assert distance(base.files) < 0.5  # rounding to 8 bits
    assert distance(best.files) > 2
    pipe.load_lora_weights(str(study.best.parent), weight_name=study.best.name)
    assert distance(best.files) < 0.5
    assert distance(base.files) > 2


def test_the_card_tells_scores_and_recipe_and_no_folder_of_this_machine(study: Study, studio: Studio) -> None:
    card = (study.directory / "best/README.md").read_text()
    assert study.best is not None
    assert study.best.name in card
    assert study.summary.verdict is not None
    for label, row in study.summary.verdict.rows.items():
        name = "this file" if label == study.summary.verdict.winner else label
        line = next(line for line in card.replace("\\", "").splitlines() if line.startswith(f"| {name} |"))
        shares = " | ".join(f"{row.sources[source]:.3f}" for source in study.summary.names)
        assert line == f"| {name} | {row.weakest:.3f} | {row.ci_low:.3f} … {row.ci_high:.3f} | {shares} | {row.artifacts:.3f} |"
    assert str(studio.folder) not in card


class _Count:
    """Counts evaluations of candidates, which are done by the real evaluator."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recipes: list[str] = []
        real = Evaluator.evaluate

        def evaluate(evaluator: Evaluator, recipe: Recipe, *rest: Any) -> object:
            self.recipes.append(recipe.hash)
            return real(evaluator, recipe, *rest)

        monkeypatch.setattr(Evaluator, "evaluate", evaluate)


def test_again_renders_nothing_a_larger_budget_goes_on_and_a_lost_export_is_replaced(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = studio.options(out=tmp_path / "study", budget=2, finalists=1)
    count = _Count(monkeypatch)
    first = optimize(**options)
    assert len(count.recipes) == 6 + 3  # four baselines and two trials, then one finalist, stack and naive merge
    count.recipes.clear()
    again = optimize(**options)
    assert count.recipes == []
    assert (again.best, again.summary) == (first.best, first.summary)
    more = optimize(**options | {"budget": 4})
    assert len(count.recipes) == 2 + 3
    assert len(more.trials) == 8
    assert [t.evaluation.recipe_hash for t in more.trials[:6] if t.evaluation] == [
        t.evaluation.recipe_hash for t in first.trials if t.evaluation
    ]
    assert yaml.safe_load((tmp_path / "study/study.yaml").read_text())["budget"] == 4
    assert more.best is not None
    content = more.best.read_bytes()
    more.best.unlink()
    count.recipes.clear()
    lost = optimize(**options | {"budget": 4})
    assert len(count.recipes) == 3
    assert lost.best is not None
    assert (lost.best, lost.best.read_bytes()) == (more.best, content)


def test_the_same_run_elsewhere_gives_the_same_file(study: Study, studio: Studio, tmp_path: Path) -> None:
    again = optimize(**studio.options(out=tmp_path / "again"))
    assert study.best is not None
    assert again.best is not None
    assert again.best.read_bytes() == study.best.read_bytes()
    assert again.summary.verdict == study.summary.verdict


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_whole_job_runs_on_a_gpu(studio: Studio, tmp_path: Path) -> None:
    """Merges lie there, and what is written is read back on the CPU."""
    study = optimize(**studio.options(out=tmp_path / "study", device="cuda"))
    assert study.best is not None
    assert study.complete
