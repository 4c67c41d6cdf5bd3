"""Extraction: exact at full rank, the best approximation below it, read by diffusers, and honest about what a LoRA cannot hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from optimizer.adapters import load_adapter, weight_shapes
from optimizer.checkpoints.folder import Folder
from optimizer.cli.main import execute
from optimizer.errors import BaseModelError
from optimizer.merging.models.extract import extract
from optimizer.rendering import Prompt, Renderer, RenderSettings, base_weights, load_pipeline
from optimizer.rendering.pipeline_class import models_of
from tests.tiny import tiny_pipeline, tiny_xl_pipeline

KINDS: dict[str, Callable[[], DiffusionPipeline]] = {"sd1": tiny_pipeline, "sdxl": tiny_xl_pipeline}
SETTINGS = RenderSettings(steps=2, resolution=32)
PROMPTS = [Prompt("a red fox", 1), Prompt("an owl", 2)]


def pair(folder: Path, kind: str, *, rank: int = 0) -> tuple[Path, Path]:
    """A base and a model whose modules a training changed: by changes of a rank, or of every rank, and then norms as well."""
    base, model = KINDS[kind](), KINDS[kind]()
    draw = torch.Generator().manual_seed(1)
    for weight in base_weights(model).values():
        rows, columns = weight.shape[0], weight[0].numel()
        change = torch.randn(rows, rank or rows, generator=draw) @ torch.randn(rank or rows, columns, generator=draw)
        weight.data.add_(0.02 * change.reshape(weight.shape) / (rank or rows) ** 0.5)
    if not rank:
        model.unet.conv_norm_out.weight.data.add_(0.5)
    base.save_pretrained(folder / "base")
    model.save_pretrained(folder / "model")
    return folder / "model", folder / "base"


def weights(folder: Path) -> dict[str, Tensor]:
    return {path: weight.data for path, weight in base_weights(load_pipeline(folder, device="cpu", dtype=torch.float32)).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_low_rank_is_found_whole_and_diffusers_draws_with_it(kind: str, tmp_path: Path) -> None:
    model, base = pair(tmp_path, kind, rank=3)
    words = [
        "extract",
        str(model),
        str(base),
        "--rank",
        "4",
        "--dialect",
        "diffusers",
        "--dtype",
        "fp32",
        "--out",
        str(tmp_path / "x.safetensors"),
    ]
    assert execute(words) == 0
    adapter, before, after = load_adapter(tmp_path / "x.safetensors"), weights(base), weights(model)
    assert adapter.base == ("unknown" if kind == "sd1" else adapter.base)
    assert set(adapter.modules) == set(before)
    for path, factors in adapter.modules.items():
        torch.testing.assert_close(before[path] + factors.delta().reshape(before[path].shape), after[path], rtol=0, atol=2e-5)
    theirs: Any = load_pipeline(base, device="cpu", dtype=torch.float32)
    theirs.load_lora_weights(tmp_path, weight_name="x.safetensors")
    drawn, wanted, plain = (
        Renderer(pipeline, SETTINGS).render(PROMPTS).int()
        for pipeline in (theirs, *(load_pipeline(folder, device="cpu", dtype=torch.float32) for folder in (model, base)))
    )
    assert (drawn - wanted).abs().max() <= 2
    assert (plain - wanted).abs().max() > 5


def test_less_than_the_whole_is_the_best_approximation(tmp_path: Path) -> None:
    model, base = pair(tmp_path, "sd1")
    found, before, after = extract(Folder(model), Folder(base), rank=2), weights(base), weights(model)
    for path, factors in found.adapter.modules.items():
        change = (after[path] - before[path]).flatten(1)
        u, s, vh = torch.linalg.svd(change)
        best = u[:, :2] @ torch.diag(s[:2]) @ vh[:2]
        torch.testing.assert_close(factors.delta().flatten(1), best, rtol=0, atol=2e-3 * float(s[0]))
    changes = {p: (after[p] - before[p]) for p in after}
    for part, kept in found.parts.items():
        own = [p for p in changes if p.startswith(f"{part}.")]
        assert kept.modules == len(own)
        assert kept.energy == pytest.approx(sum(float(changes[p].double().square().sum()) for p in own), rel=1e-5)
        lost = sum(float((changes[p] - found.adapter.modules[p].delta().reshape(changes[p].shape)).double().square().sum()) for p in own)
        assert kept.error == pytest.approx((lost / kept.energy) ** 0.5, rel=1e-3)


def test_a_share_of_the_energy_at_the_least_rank(tmp_path: Path) -> None:
    model, base = pair(tmp_path, "sd1")
    found = extract(Folder(model), Folder(base), rank=64, energy=0.8)
    assert all(0.8 <= kept.kept / kept.energy < 0.99 for kept in found.parts.values())
    assert len({factors.rank for factors in found.adapter.modules.values()}) > 3


def test_what_no_lora_holds_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model, base = pair(tmp_path, "sd1")
    assert list(extract(Folder(model), Folder(base), rank=1).beyond) == ["unet.conv_norm_out.weight"]
    monkeypatch.chdir(tmp_path)
    assert execute(["extract", "model", "base", "--rank", "2"]) == 0
    assert execute(["extract", "model", "base", "--rank", "2"]) == 0
    told = capsys.readouterr().out
    assert "not in the file: 1 tensor changed that no LoRA holds, most of all unet.conv_norm_out.weight" in told
    assert "LoRA    model_rank2_v2.safetensors" in told
    assert len(load_adapter(tmp_path / "model_rank2.safetensors").modules) == len(weight_shapes(models_of(tiny_pipeline())))


def test_a_pair_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, base = pair(tmp_path, "sd1")
    tiny_xl_pipeline().save_pretrained(tmp_path / "xl")
    tiny_pipeline(widths=(32, 16, 24, 24)).save_pretrained(tmp_path / "wide")
    with pytest.raises(BaseModelError, match="base: no module differs from base — choose a model that was trained from the base"):
        extract(Folder(base), Folder(base))
    with pytest.raises(
        BaseModelError, match="xl is a StableDiffusionXLPipeline, base a StableDiffusionPipeline — choose models of one family"
    ):
        extract(Folder(tmp_path / "xl"), Folder(base))
    with pytest.raises(
        BaseModelError, match=r"the models do not fit each other: unet\..* has shape .* in wide and .* in base — choose a pair"
    ):
        extract(Folder(tmp_path / "wide"), Folder(base))
    capsys.readouterr()
    for words, message in (
        (["--rank", "0"], "--rank: the rank is 0 — give a number, 1 or more"),
        (["--rank-energy", "2"], "--rank-energy: got 2 — give a share, such as 0.95"),
        (["--out", "x.bin"], "--out x.bin: is neither such a file nor a directory — name a file that ends in .safetensors"),
    ):
        assert execute(["extract", str(base), str(base), *words]) == 2
        assert capsys.readouterr().err.startswith(f"optimize: {message}")


def test_positions_are_no_weights_and_numbers_are_finite(tmp_path: Path) -> None:
    model, base = pair(tmp_path, "sd1")
    (file,) = (base / "text_encoder").glob("*.safetensors")
    tensors = load_file(file)
    save_file(tensors | {"embeddings.position_ids": torch.arange(16)}, file)
    assert extract(Folder(model), Folder(base), rank=1).adapter.modules
    (file,) = (model / "unet").glob("*.safetensors")
    tensors = load_file(file)
    tensors["conv_in.weight"][0] = float("nan")
    save_file(tensors, file)
    with pytest.raises(BaseModelError, match=r"model: unet\.conv_in\.weight holds values that are not finite — fetch the model again"):
        extract(Folder(model), Folder(base), rank=1)
