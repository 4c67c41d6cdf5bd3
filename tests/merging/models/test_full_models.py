"""Full models: every formula on every tensor, complete folders that draw, little memory, and one line for what does not fit."""

from __future__ import annotations

import json
import math
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from optimizer.checkpoints.folder import Folder
from optimizer.errors import BaseModelError, RecipeError
from optimizer.merging import METHODS, Recipe
from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank
from optimizer.merging.models import FORMULAS, Blend, Job, merge_models
from optimizer.rendering import Prompt, Renderer, RenderSettings, load_pipeline
from tests.merging.samples import UNCALIBRATED
from tests.tiny import tiny_pipeline, tiny_sd3_pipeline, tiny_xl_pipeline

NAMES = ("base-1.0", "anime_v2+x", "real.v3")


def tuned(pipeline: Any, seed: int, dtype: torch.dtype = torch.float32) -> Any:
    """The pipeline after a training that changed every weight a little."""
    draw = torch.Generator().manual_seed(seed)
    for part in ("unet", "text_encoder", "text_encoder_2"):
        model = pipeline.components.get(part)
        for weight in model.parameters() if model is not None and seed else ():
            weight.data.add_(0.02 * torch.randn(weight.shape, generator=draw))
    return pipeline.to(dtype)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(NAMES):
        tuned(tiny_pipeline(), seed).save_pretrained(place / name)
    return [place / name for name in NAMES]


def tensors(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for part in ("unet", "text_encoder"):
        (file,) = (folder / part).glob("*.safetensors")
        with safe_open(file, framework="pt") as opened:
            found |= {f"{part}.{name}": opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return found


def test_what_is_written_is_what_each_formula_says(folders: list[Path], tmp_path: Path) -> None:
    c, a, b = (tensors(folder) for folder in folders)
    al = 0.3
    wanted: dict[str, Callable[[str], Tensor]] = {
        "weighted_sum": lambda n: (1 - al) * a[n] + al * b[n],
        "sigmoid": lambda n: a[n] + (b[n] - a[n]) * (al**2 * (3 - 2 * al)),
        "inv_sigmoid": lambda n: a[n] + (b[n] - a[n]) * (0.5 - math.sin(math.asin(1 - 2 * al) / 3)),
        "add_difference": lambda n: a[n] + al * (b[n] - c[n]),
    }
    assert set(wanted) == set(FORMULAS)
    for name, formula in wanted.items():
        order = [folders[1], folders[2], *([folders[0]] if FORMULAS[name].models == 3 else [])]
        merged = merge_models(Job(tuple(map(Folder, order)), formula=name, alpha=al), tmp_path / name)
        found = tensors(merged.place)
        assert found.keys() == a.keys()
        assert merged.tensors == sum(tensor.is_floating_point() for tensor in a.values())
        for key in found:
            torch.testing.assert_close(found[key], formula(key), rtol=0, atol=1e-6)


def test_the_ends_of_an_interpolation_are_the_models(folders: list[Path], tmp_path: Path) -> None:
    for name in ("weighted_sum", "sigmoid", "inv_sigmoid"):
        for alpha, folder in ((0.0, folders[1]), (1.0, folders[2])):
            merged = merge_models(Job((Folder(folders[1]), Folder(folders[2])), formula=name, alpha=alpha), tmp_path / f"{name}{alpha}")
            wanted = tensors(folder)
            for key, tensor in tensors(merged.place).items():
                torch.testing.assert_close(tensor, wanted[key], rtol=0, atol=3e-7)


@pytest.mark.parametrize("method", [name for name, m in UNCALIBRATED.items() if m.rank != "required" and m.most in (0, 2)])
def test_changes_of_a_base_merge_by_every_method(folders: list[Path], tmp_path: Path, method: str) -> None:
    fields = METHODS[method].starting_values()
    recipe = Recipe(method=method, weights=(0.7, 0.5), **fields)
    models = (Folder(folders[1]), Folder(folders[2]))
    merged = merge_models(Job(models, base=Folder(folders[0]), recipe=recipe), tmp_path / "out")
    base, a, b = (tensors(folder) for folder in folders)
    found = tensors(merged.place)
    for name in ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", "unet.conv_in.weight"):
        deltas = [(x[name] - base[name]).flatten(1) for x in (a, b)]
        terms = tuple(LowRank(torch.eye(len(d))[None], d[None]) for d in deltas)
        signed = torch.tensor([[METHODS[method].sign(i) * w] for i, w in enumerate((0.7, 0.5))])
        change = METHODS[method].function(Deltas((name,), terms, signed, tuple(m.digest for m in models), signed), recipe)
        dense = (change.dense() if isinstance(change, LowRank) else change)[0].reshape(base[name].shape)
        torch.testing.assert_close(found[name], base[name] + dense, rtol=1e-4, atol=1e-5)
    assert all(tensor.isfinite().all() for tensor in found.values())
    bias = "unet.conv_in.bias"
    assert not torch.equal(found[bias], base[bias])


def test_models_have_no_router(folders: list[Path]) -> None:
    recipe = Recipe(method="routed", weights=(0.7, 0.5), calibration="ab" * 32)
    job = Job((Folder(folders[1]), Folder(folders[2])), base=Folder(folders[0]), recipe=recipe)
    with pytest.raises(RecipeError, match=r"^recipe: calibration: a router applies to the factors of LoRAs, .* — use another method"):
        Blend(job)


def test_the_result_is_a_whole_pipeline_that_draws(tmp_path: Path) -> None:
    for seed, name in enumerate(NAMES[:2]):
        tuned(tiny_xl_pipeline(), seed + 1).save_pretrained(tmp_path / name)
    models = tuple(Folder(tmp_path / name) for name in NAMES[:2])
    merged = merge_models(Job(models, formula="weighted_sum", alpha=0.5, dtype="BF16"), tmp_path / "merged")
    again = merge_models(Job(models, formula="weighted_sum", alpha=0.5, dtype="BF16"), tmp_path / "again")
    pipelines = [load_pipeline(folder, device="cpu", dtype=torch.float32) for folder in (merged.place, *(m.place for m in models))]
    pictures = [Renderer(p, RenderSettings(steps=2, resolution=32)).render([Prompt("a red fox", 1)]).int() for p in pipelines]
    assert all((pictures[0] - other).abs().max() > 0 for other in pictures[1:])
    assert all(t.dtype == torch.bfloat16 for t in tensors(merged.place).values() if t.is_floating_point())
    for file in sorted(path for path in merged.place.rglob("*") if path.is_file()):
        assert file.read_bytes() == (again.place / file.relative_to(merged.place)).read_bytes()


def test_models_of_other_number_formats_merge_in_fp32(folders: list[Path], tmp_path: Path) -> None:
    tuned(tiny_pipeline(), 2, torch.float16).save_pretrained(tmp_path / "half")
    merged = merge_models(Job((Folder(folders[1]), Folder(tmp_path / "half")), formula="weighted_sum", alpha=0.5), tmp_path / "out")
    a, b, found = tensors(folders[1]), tensors(tmp_path / "half"), tensors(merged.place)
    for name, tensor in found.items():
        assert tensor.dtype == a[name].dtype
        torch.testing.assert_close(tensor, (a[name] + b[name].to(a[name].dtype)) / 2, rtol=0, atol=1e-6)


def renamed(folder: Path, part: str, names: Callable[[str], tuple[str, ...]]) -> None:
    """Give the tensors of a part other names, or several."""
    (file,) = (folder / part).glob("*.safetensors")
    with safe_open(file, framework="pt") as opened:
        held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    save_file({new: tensor.clone() for name, tensor in held.items() for new in names(name)}, file)


def test_names_that_versions_of_transformers_gave_otherwise_are_one(folders: list[Path], tmp_path: Path) -> None:
    """Published folders have a level of names that what is saved today leaves out; T5's embeddings lie twice in some."""
    published = tmp_path / "published"
    shutil.copytree(folders[1], published)
    renamed(published, "text_encoder", lambda name: (f"text_model.{name}",))
    for number, order in enumerate(((published, folders[2]), (folders[2], published))):
        merged = merge_models(Job(tuple(map(Folder, order)), formula="weighted_sum", alpha=0.25), tmp_path / f"out{number}")
        assert tensors(merged.place).keys() == tensors(order[0]).keys()
        load_pipeline(merged.place, device="cpu", dtype=torch.float32)
    for name in ("plain", "twice"):
        tuned(tiny_sd3_pipeline(), 1).save_pretrained(tmp_path / name)
    renamed(
        tmp_path / "twice", "text_encoder_3", lambda name: (name, "encoder.embed_tokens.weight") if name == "shared.weight" else (name,)
    )
    job = Job((Folder(tmp_path / "twice"), Folder(tmp_path / "plain")), formula="weighted_sum", alpha=0.25)
    merged = merge_models(job, tmp_path / "t5")
    with safe_open(merged.place / "text_encoder_3/model.safetensors", framework="pt") as opened:
        assert torch.equal(opened.get_tensor("encoder.embed_tokens.weight"), opened.get_tensor("shared.weight"))


def test_models_that_predict_other_things_are_refused(folders: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "velocity"
    shutil.copytree(folders[2], other)
    config = other / "scheduler/scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "v_prediction"}))
    job = Job((Folder(folders[1]), Folder(other)), formula="weighted_sum")
    message = r"velocity: anime_v2\+x predicts epsilon, velocity v_prediction, and what lies between draws nothing — choose models"
    with pytest.raises(BaseModelError, match=message):
        merge_models(job, tmp_path / "out")


def test_a_shard_that_is_missing_is_named_in_both_variants(folders: list[Path], tmp_path: Path) -> None:
    for variant in ("", ".fp16"):
        place = tmp_path / f"sharded{variant}"
        pipeline = load_pipeline(folders[1], device="cpu", dtype=torch.float16)
        pipeline.save_pretrained(place, variant=variant[1:] or None, max_shard_size="200KB")
        assert Folder(place).parts["unet"].keys() == Folder(folders[1]).parts["unet"].keys()
        next(iter(sorted((place / "unet").glob("*00001-of*.safetensors")))).unlink()
        with pytest.raises(BaseModelError, match=r"unet: \d+ tensors are missing, the first is .* — fetch the whole folder again"):
            Folder(place)


def test_blocks_have_weights_of_their_own(folders: list[Path], tmp_path: Path) -> None:
    """Without a base the changes are those from the first model: weighted sums whose α differs from block to block."""
    recipe = Recipe(method="linear", weights=(0.6, 0.4), blocks=({}, {"IN": 0.5, "TE": 0.0}))
    merged = merge_models(Job((Folder(folders[1]), Folder(folders[2])), recipe=recipe), tmp_path / "out")
    a, b, found = tensors(folders[1]), tensors(folders[2]), tensors(merged.place)
    for name, tensor in found.items():
        part = 0.0 if name.startswith("text_encoder") else 0.2 if name.startswith(("unet.down_blocks", "unet.conv_in")) else 0.4
        torch.testing.assert_close(tensor, a[name] + part * (b[name] - a[name]), rtol=0, atol=1e-6)
    with pytest.raises(RecipeError, match="unknown block 'DOUBLE_00' of the base 'sd1'"):
        Blend(Job((Folder(folders[1]), Folder(folders[2])), recipe=recipe.replaced(blocks=({}, {"DOUBLE_00": 0.5}))))


def test_models_that_do_not_fit_are_refused_and_merge_by_force(folders: list[Path], tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    tuned(tiny_pipeline(widths=(16, 16, 24, 32)), 1).save_pretrained(wide)
    job = Job((Folder(folders[1]), Folder(wide)), formula="weighted_sum", alpha=0.5)
    message = (
        r"anime_v2\+x: the models do not fit each other: unet\..* has shape \(24.* in anime_v2\+x and \(32.* in wide \(and \d+ more\) — "
    )
    with pytest.raises(BaseModelError, match=message):
        merge_models(job, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    forced = merge_models(Job(job.models, formula="weighted_sum", alpha=0.5, force=True), tmp_path / "out")
    a, b, found = tensors(folders[1]), tensors(wide), tensors(forced.place)
    apart = {name for name in a if name not in b or a[name].shape != b[name].shape}
    assert len(forced.apart) == len(apart | (b.keys() - a.keys()))
    assert forced.apart[0].startswith("unet.")
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, a[name] if name in apart else (a[name] + b[name]) / 2, rtol=0, atol=1e-6)
    tiny_xl_pipeline().save_pretrained(tmp_path / "xl")
    with pytest.raises(BaseModelError, match="is a StableDiffusionPipeline, xl a StableDiffusionXLPipeline — choose models of one family"):
        merge_models(Job((Folder(folders[1]), Folder(tmp_path / "xl")), formula="weighted_sum"), tmp_path / "never")


def test_what_is_no_model_is_refused_in_a_line(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"nothing: no diffusers pipeline here \(model_index.json is missing\) — give the folder"):
        Folder(tmp_path / "nothing")
    torn = tmp_path / "torn"
    shutil.copytree(folders[1], torn)
    (file,) = (torn / "unet").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(BaseModelError, match=r"safetensors: cannot be read, or was not downloaded to its end .* — fetch the whole folder"):
        Folder(torn)
    file.unlink()
    with pytest.raises(BaseModelError, match="unet: holds no safetensors weights — fetch the whole folder again"):
        Folder(torn)
    with pytest.raises(RecipeError, match=r"add_difference takes 3 models \(A \+ α\(B − C\)\), 2 were given"):
        merge_models(Job((Folder(folders[1]), Folder(folders[2])), formula="add_difference"), tmp_path / "out")
    with pytest.raises(RecipeError, match=r"α is 1\.5 — give a number from 0 to 1"):
        merge_models(Job((Folder(folders[1]), Folder(folders[2])), formula="sigmoid", alpha=1.5), tmp_path / "out")


def test_no_more_than_a_few_tensors_are_held(folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was read for a tensor is gone when the next but one is read."""
    held: list[weakref.ref[Tensor]] = []
    most, read = 0, Folder.read

    def watched(self: Folder, part: str, name: str) -> Tensor:
        nonlocal most
        most = max(most, sum(ref() is not None for ref in held))
        tensor = read(self, part, name)
        held.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(Folder, "read", watched)
    recipe = Recipe(method="ties", weights=(0.7, 0.5), density=0.4)
    job = Job((Folder(folders[1]), Folder(folders[2])), base=Folder(folders[0]), recipe=recipe)
    merge_models(job, tmp_path / "out")
    assert len(held) > 2000
    assert most <= 6


def test_values_that_are_not_finite_are_named(folders: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(folders[1], bad)
    (file,) = (bad / "unet").glob("*.safetensors")
    with safe_open(file, framework="pt") as opened:
        held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    held["conv_in.weight"][0, 0, 0, 0] = float("inf")
    save_file(held, file)
    good, recipe = Folder(folders[2]), Recipe(method="ties", weights=(1.0, 1.0), density=0.5)
    for job in (
        Job((Folder(bad), good), "weighted_sum", 0.5),
        Job((good, Folder(bad)), "weighted_sum", 0.0),
        Job((good, Folder(folders[0])), base=Folder(bad), recipe=recipe),
    ):
        with pytest.raises(BaseModelError) as caught:
            merge_models(job, tmp_path / "out")
        remedy = "fetch the model again, or choose another one"
        assert str(caught.value) == f"{bad}: unet.conv_in.weight holds values that are not finite — {remedy}"
        assert not (tmp_path / "out").exists()


def test_values_that_a_number_format_cannot_hold_are_refused(folders: list[Path], tmp_path: Path) -> None:
    large = tmp_path / "large"
    shutil.copytree(folders[1], large)
    (file,) = (large / "unet").glob("*.safetensors")
    with safe_open(file, framework="pt") as opened:
        held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    held["conv_in.weight"][0, 0, 0, 0] = 4e5
    save_file(held, file)
    job = Job((Folder(large), Folder(folders[2])), "weighted_sum", 0.5, dtype="F16")
    with pytest.raises(RecipeError) as caught:
        merge_models(job, tmp_path / "out")
    assert str(caught.value) == (
        "unet.conv_in.weight: the merge has values up to 2e+05, which float16 cannot hold — "
        "lower the weights, or write it with --dtype bf16 or fp32"
    )
    assert not (tmp_path / "out").exists()
    assert merge_models(replace(job, dtype="BF16"), tmp_path / "out").tensors
