"""Jobs that write one file: they report their progress, print nothing, and leave nothing behind when they are stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from optimizer import load_adapter
from optimizer.checkpoints.open import open_model
from optimizer.errors import UsageError
from optimizer.jobs.extract import ExtractRequest, extract_lora
from optimizer.jobs.merge_options import MergeOptions
from optimizer.jobs.merge_plan import plan
from optimizer.jobs.merge_write import write_merge
from optimizer.jobs.model_merge_write import write_model_merge
from optimizer.merging import Recipe, merge
from optimizer.merging.models import Job
from tests.files import LINEAR, kohya_file, random_parts
from tests.jobs.ticks import Stop, Ticks
from tests.ldm import save_single_file
from tests.merging.models.test_full_models import tuned
from tests.tiny import tiny_pipeline


@pytest.fixture
def out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    """An empty folder to write to; nothing is printed meanwhile."""
    place = tmp_path / "out"
    place.mkdir()
    capfd.readouterr()
    return place


@pytest.fixture
def loras(tmp_path: Path) -> list[str]:
    shapes = LINEAR | {"unet.conv_in": (8, 4, 3, 3)}
    return [str(kohya_file(tmp_path / f"{n}.safetensors", random_parts(shapes, rank=2 + i, seed=i)).path) for i, n in enumerate("ab")]


@pytest.fixture(params=["folder", "file"])
def models(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """A base and a model that was trained from it."""
    pipelines = {name: tuned(tiny_pipeline(), seed) for seed, name in enumerate(("base", "tuned"))}
    for name, pipeline in pipelines.items():
        if request.param == "folder":
            pipeline.save_pretrained(tmp_path / name)
        else:
            save_single_file(pipeline, tmp_path / f"{name}.safetensors")
    return [tmp_path / (name if request.param == "folder" else f"{name}.safetensors") for name in pipelines]


def options(loras: list[str], out: Path, **more: object) -> MergeOptions:
    return MergeOptions.model_validate({"sources": loras, "weights": (0.7, 0.5), "out": out, "device": "cpu", "base": "", **more})


def test_a_merge_of_loras(loras: list[str], out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked, ticks = options(loras, out, dtype="fp32"), Ticks()
    job = plan(None, asked)
    found = write_merge(job, asked, tick=ticks)
    assert ticks.complete
    assert ticks.seen[-1] == (len(found.merged.modules), len(found.merged.modules))
    assert len(ticks.seen) > 1
    wanted = merge([load_adapter(path) for path in loras], Recipe(method="linear", weights=(0.7, 0.5), rank=job.recipe.rank))
    written = load_adapter(found.check.path)
    for path, factors in wanted.modules.items():
        torch.testing.assert_close(written.modules[path].delta(), factors.delta())
    assert sorted(out.iterdir()) == sorted([found.check.path, found.recipe, found.card])
    assert capfd.readouterr() == ("", "")


def test_a_merge_of_loras_is_stopped(loras: list[str], out: Path) -> None:
    asked, ticks = options(loras, out), Ticks(stop_at=1)
    with pytest.raises(Stop):
        write_merge(plan(None, asked), asked, tick=ticks)
    assert len(ticks.seen) == 1
    assert list(out.iterdir()) == []


def test_a_merge_of_models(models: list[Path], out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ticks = Ticks()
    job = Job(tuple(open_model(str(model)) for model in models), formula="weighted_sum", alpha=0.4)
    found = write_model_merge(job, out / "merged", tick=ticks)
    assert ticks.complete
    assert found.place == out / f"merged{models[0].suffix}"
    assert yaml.safe_load(found.record.read_text()) == found.facts
    assert (found.facts["method"], found.facts["alpha"], found.facts["tensors"]) == ("weighted_sum", 0.4, found.tensors)
    with pytest.raises(UsageError, match="is there already"):
        write_model_merge(job, out / "merged")
    assert capfd.readouterr() == ("", "")


def test_a_merge_of_models_is_stopped(models: list[Path], out: Path) -> None:
    job = Job(tuple(open_model(str(model)) for model in models), formula="weighted_sum", alpha=0.4)
    ticks = Ticks(stop_at=5)
    with pytest.raises(Stop):
        write_model_merge(job, out, tick=ticks)
    assert [done for done, _ in ticks.seen] == [1, 2, 3, 4, 5]
    assert list(out.iterdir()) == []
    assert write_model_merge(job, out).place.exists()


def test_an_extraction(models: list[Path], out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ticks = Ticks()
    request = ExtractRequest(model=str(models[1]), base=str(models[0]), rank=2, dtype="fp32", out=out)
    found = extract_lora(request, tick=ticks)
    assert ticks.complete
    assert found.path == out / "tuned_rank2.safetensors"
    assert load_adapter(found.path).modules.keys() == found.extraction.adapter.modules.keys()
    assert extract_lora(request).path == out / "tuned_rank2_v2.safetensors"
    assert capfd.readouterr() == ("", "")


def test_an_extraction_is_stopped(models: list[Path], out: Path) -> None:
    ticks = Ticks(stop_at=3)
    with pytest.raises(Stop):
        extract_lora(ExtractRequest(model=str(models[1]), base=str(models[0]), out=out), tick=ticks)
    assert len(ticks.seen) == 3
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ExtractRequest(model="a", base="b", rank=0), "--rank: the rank is 0 — give a number, 1 or more"),
        (ExtractRequest(model="a", base="b", rank_energy=1.5), "--rank-energy: got 1.5 — give a share, such as 0.95"),
    ],
)
def test_an_extraction_that_makes_no_sense(request_: ExtractRequest, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        extract_lora(request_)
    assert str(caught.value) == message
