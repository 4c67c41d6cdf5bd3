"""Full models as sources: the same job, over a base or between them, that ends with a model which loads and draws as it was scored."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from diffusers import DiffusionPipeline
from optuna.trial import FixedTrial
from safetensors import safe_open
from torch import Tensor

from optimizer import optimize
from optimizer.checkpoints.folder import Folder
from optimizer.checkpoints.open import open_model
from optimizer.cli.main import execute
from optimizer.errors import BaseModelError, ExportError, UsageError
from optimizer.merging import Recipe, block_map
from optimizer.merging.models import Blend
from optimizer.rendering import Prompt, Renderer, RenderSettings, load_pipeline
from optimizer.search.config import Config
from optimizer.search.loop import first_trials
from optimizer.search.proposals.initial_trials import baselines
from optimizer.search.proposals.space import SearchSpace, space_of_models
from optimizer.search.results.export_model import export_model
from optimizer.search.sources.full_models import load_models
from studies.demo.world import demo_embedder
from tests.checkpoints.test_single_file_models import xl
from tests.ldm import save_single_file
from tests.rendering.candidates.test_full_weights import KINDS, shaken, trained

NAMES = ("anna_v1.2+x", "bert")
PROMPTS = [Prompt("a red fox", 1), Prompt("a blue owl", 2)]
SETTINGS = RenderSettings(steps=2, resolution=32)


def models(folder: Path, kind: str = "sd1", names: tuple[str, ...] = (*NAMES, "base")) -> list[Path]:
    return [trained(kind, folder / name, seed) for seed, name in enumerate(names)]


def options(folder: Path, sources: list[Path], **more: Any) -> dict[str, Any]:
    (folder / "words.yaml").write_text("subjects: [a ball, a cube]\nsettings: [at sea, in snow]\n")
    few = {"own": 1, "joint": 1, "confirm": 1, "finalists": 1, "steps": 2, "resolution": 32, "device": "cpu", "budget": 3}
    words = {"prompts": folder / "words.yaml", "embedder": demo_embedder(), "out": folder / "study", "kind": "model"}
    return {"sources": sources, **few, **words, **more}


def tensors(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            found |= {f"{file.parent.name}.{name}": opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return found


def drawn(place: Path) -> Tensor:
    return Renderer(load_pipeline(place, device="cpu", dtype=torch.float32), SETTINGS).render(PROMPTS)


def test_alpha_is_searched_between_two_models(tmp_path: Path) -> None:
    a, b, _ = models(tmp_path)
    study = optimize(**options(tmp_path, [a, b], dtype="fp32"))
    assert study.complete
    assert study.best is not None
    assert [t.label for t in study.trials[:3]] == ["anna_v1.2+x alone", "bert alone", "naive"]
    assert len(study.trials) == 3 + 3
    for trial in study.trials:
        assert trial.evaluation is not None
        first, second = Recipe.from_data(trial.evaluation.recipe).weights
        assert first + second == pytest.approx(1)
        assert 0 <= second <= 1
    alone = [t.evaluation.score for t in study.trials[:2] if t.evaluation]
    assert all(t.evaluation.score > max(alone) for t in study.trials[2:] if t.evaluation)
    assert study.summary.base == ""
    assert next(c.kind for c in study.summary.columns) == "source"
    shipped = Recipe.from_data(study.summary.best.evaluation.recipe) if study.summary.best and study.summary.best.evaluation else None
    assert shipped is not None
    one, two, found = tensors(a), tensors(b), tensors(study.best)
    assert found.keys() == one.keys()
    for name, tensor in found.items():
        wanted = one[name] if name.startswith("vae") else one[name] + shipped.weights[1] * (two[name] - one[name])
        torch.testing.assert_close(tensor, wanted, rtol=0, atol=1e-6)
    assert not torch.equal(drawn(study.best), drawn(a))
    again = optimize(**options(tmp_path, [a, b], dtype="fp32"))
    assert again.summary.model_dump_json() == study.summary.model_dump_json()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_models_of_every_family_merge_over_their_base(kind: str, tmp_path: Path) -> None:
    *sources, base = models(tmp_path, kind)
    study = optimize(**options(tmp_path, sources, base=base, methods=("ties", "dare_linear"), budget=4))
    assert study.complete
    assert study.best is not None
    assert [t.state for t in study.trials] == ["COMPLETE"] * 8
    assert [c.kind for c in study.summary.columns][:3] == ["base", "source", "source"]
    assert study.summary.best is not None
    assert study.summary.best.evaluation is not None
    recipe = Recipe.from_data(study.summary.best.evaluation.recipe)
    blend = load_models(Config.of(**options(tmp_path, sources, base=base))).blend(recipe)
    found = Folder(study.best)
    for part, name in blend.names:
        assert torch.equal(found.read(part, name), blend.read(part, name))
    assert torch.isfinite(drawn(study.best).float()).all()
    words = ["--sources", *map(str, sources), "--base", str(base), "--out", str(tmp_path / "again")]
    assert execute(["merge", str(study.directory / "best/recipe.yaml"), *words]) == 0
    for file in sorted(study.best.rglob("*.safetensors")):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(study.best)).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_single_files_end_in_a_single_file_that_draws_as_it_was_scored(kind: str, tmp_path: Path) -> None:
    """Its trials equal those of the folders that the files were made of; the base may be of either kind."""
    base: DiffusionPipeline = xl() if kind == "sdxl" else KINDS[kind]()
    files: list[Path] = []
    base.save_pretrained(tmp_path / "base")
    for seed, name in enumerate(NAMES):
        pipeline = copy.deepcopy(base)
        shaken(pipeline, seed)
        pipeline.save_pretrained(tmp_path / name)
        files.append(save_single_file(pipeline, tmp_path / f"{name}.safetensors"))
    more = {"base": tmp_path / "base", "methods": ("ties",), "budget": 2}
    study = optimize(**options(tmp_path, files, **more))
    same = optimize(**options(tmp_path, [tmp_path / name for name in NAMES], **more) | {"out": tmp_path / "same"})
    assert study.best is not None
    assert study.best.suffix == ".safetensors"
    scores = [[t.evaluation.score for t in found.trials if t.evaluation] for found in (study, same)]
    assert scores[0] == scores[1]
    assert same.best is not None
    one, other = open_model(study.best), open_model(same.best)
    for part, name in one.names:
        assert torch.equal(one.read(part, name), other.read(part, name))
    report = (study.directory / "report.html").read_text()
    assert "among your checkpoints" in report
    wanted = "StableDiffusionXLPipeline" if kind == "sdxl" else "StableDiffusionPipeline"
    assert f"pipe = {wanted}.from_single_file(" in report
    alpha = optimize(**options(tmp_path, files, budget=1, base_config=tmp_path / "base") | {"out": tmp_path / "alpha"})
    assert alpha.best is not None
    assert alpha.best.suffix == ".safetensors"


def test_what_was_begun_goes_on_where_it_was(tmp_path: Path) -> None:
    """Through the command line, with a larger budget, and with the winner that lies there already."""
    a, b, _ = models(tmp_path)
    study = optimize(**options(tmp_path, [a, b], budget=1))
    assert study.best is not None
    assert execute(["resume", str(study.directory), "--budget", "2"]) == 0
    assert len([p for p in (study.directory / "best").iterdir() if p.is_dir()]) in (1, 2)
    assert yaml.safe_load((study.directory / "study.yaml").read_text())["kind"] == "model"
    assert json.loads((study.directory / "summary.json").read_text())["kind"] == "model"
    assert "among your LoRAs" not in (study.directory / "report.html").read_text()


def test_a_written_model_is_read_back_and_not_written_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, _ = models(tmp_path)
    ensemble = load_models(Config.of(**options(tmp_path, [a, b])))
    blend = ensemble.blend(Recipe(method="linear", weights=(0.75, 0.25)))
    first = export_model(blend, tmp_path / "best", "a-b_linear_0.75-0.25_v1.safetensors")
    assert first.name == "a-b_linear_0.75-0.25_v1"
    before = (first / "unet/diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    assert export_model(blend, tmp_path / "best", "a-b_linear_0.75-0.25_v1.safetensors") == first
    assert (first / "unet/diffusion_pytorch_model.safetensors").stat().st_mtime_ns == before
    other = ensemble.blend(Recipe(method="linear", weights=(0.75, 0.25), blocks=({}, {"OUT": 0.5})))
    assert export_model(other, tmp_path / "best", "a-b_linear_0.75-0.25_v1.safetensors").name == "a-b_linear_0.75-0.25_v2"
    read = Blend.read
    monkeypatch.setattr(Blend, "read", lambda self, part, name: read(self, part, name) * 2)
    with pytest.raises(ExportError, match=r"_v1: .*, read back, is not what was drawn with — check the disk"):
        export_model(blend, tmp_path / "best", "a-b_linear_0.75-0.25_v1.safetensors")


def test_what_makes_no_sense_for_models_is_refused_in_a_line(tmp_path: Path) -> None:
    a, b, base = models(tmp_path)
    for more, message in {
        ("rank", 8): "--rank: is for LoRAs — leave it out, or leave --kind model out",
        ("quantize", "int8"): "--quantize: nothing can be put into weights of a few bits — ",
        ("denoiser", str(base)): "--denoiser: the sources bring their own — ",
        ("apply", "branch"): "--apply branch: other weights altogether cannot go into a branch — ",
        (
            "methods",
            ("ties",),
        ): "--methods: they merge the changes of a base — name the model that the sources were trained from",
        ("base", "fake:"): "fake:: is no full model — give diffusers folders or .safetensors checkpoints",
    }.items():
        with pytest.raises(UsageError, match=message):
            optimize(**options(tmp_path, [a, b], **dict([more])))
    with pytest.raises(UsageError, match="demo:neon: is no full model"):
        optimize(**options(tmp_path, [a]) | {"sources": [a, "demo:neon"]})
    with pytest.raises(UsageError, match="svd cuts LoRAs to a rank, which models do not have"):
        optimize(**options(tmp_path, [a, b], base=base, methods=("svd",)))
    twin = tmp_path / "twin"
    shutil.copytree(a, twin)
    with pytest.raises(UsageError, match="are the same model — name every source once"):
        optimize(**options(tmp_path, [a, twin]))
    assert not (tmp_path / "study").exists()


def test_models_that_do_not_fit_merge_by_force_alone(tmp_path: Path) -> None:
    from tests.tiny import tiny_pipeline

    (a, b), wide = models(tmp_path, names=NAMES), tmp_path / "wide"
    tiny_pipeline(widths=(16, 16, 24, 32)).save_pretrained(wide)
    with pytest.raises(BaseModelError, match=r"the models do not fit each other: .* or add --force to take what does not match"):
        optimize(**options(tmp_path, [a, wide]))
    study = optimize(**options(tmp_path, [a, wide], force=True, budget=1))
    assert study.complete
    assert any("tensors are not merged, first unet." in line for line in study.summary.warnings)
    assert b.is_dir()


def space(count: int, *, anchored: bool, budget: int = 50, methods: tuple[str, ...] = ()) -> SearchSpace:
    names = [f"m{i}" for i in range(count)]
    hashes = [f"{i}" * 64 for i in range(count)]
    paths = ["text_encoder.x", "unet.conv_in", "unet.mid_block.x", "unet.up_blocks.0.resnets.0.conv1", "unet.conv_out"]
    return space_of_models(names, hashes, block_map("sd1"), paths, budget=budget, methods=methods, dtype="fp16", seed=1, anchored=anchored)


def test_of_models_between_themselves_the_first_has_what_the_others_leave() -> None:
    found = space(3, anchored=True, budget=10)
    assert found.weighed == ("m1", "m2")
    assert found.dimensions == 2
    recipe = found.suggest(FixedTrial({"weight:m1": 0.3, "weight:m2": 0.5}))
    assert recipe.weights == (0.2, 0.3, 0.5)
    assert recipe.rank is None
    starts = first_trials(found, 8)
    assert [s.label for s in baselines(found)] == ["m0 alone", "m1 alone", "m2 alone", "naive"]
    weights = [found.recipe(s.values).weights for s in starts]
    assert weights[:4] == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.3334, 0.3333, 0.3333)]
    assert weights[4:] == [(0.7, 0.15, 0.15), (0.3, 0.35, 0.35)]
    study = optuna.create_study()
    assert all(0 <= w <= 1 for _ in range(20) for w in found.suggest(study.ask()).weights[1:])


def test_blocks_of_models_get_weights_as_the_budget_allows_and_the_first_none() -> None:
    assert space(2, anchored=True, budget=10).groups == ((), ("OUT",))
    assert space(2, anchored=True, budget=50).groups == ((), ("TE", "IN", "MID", "OUT"))
    over = space(2, anchored=False, budget=50, methods=("ties",))
    assert over.groups == (("TE", "IN", "MID", "OUT"),) * 2
    assert over.methods == ("linear", "ties")
    assert [s.label for s in baselines(over)] == ["m0 alone", "m1 alone", "stack", "naive"]
    assert space(2, anchored=True).described() != space(2, anchored=False).described()
