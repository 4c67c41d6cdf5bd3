"""The written files, loaded by lycoris-lora and by PEFT: every key is used, and every layer's change is ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lycoris.kohya import create_network_from_weights
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from optimizer.adapters import Adapter, Dialect, load_adapter, save_adapter
from tests.formats import DIALECTS, FAMILIES, VERSIONS, Weight, make, shapes

PREFIXES = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_")
PRECISIONS = [(torch.float16, 1e-3), (torch.float32, 1e-6)]


def tree(weights: dict[str, tuple[int, ...]]) -> nn.Module:
    """A model whose modules have these dotted names: linear layers and convolutions of these weights' shapes."""
    root = nn.Module()
    for name, shape in weights.items():
        *above, leaf = name.split(".")
        place = root
        for level in above:
            if not hasattr(place, level):
                place.add_module(level, nn.Module())
            place = place.get_submodule(level)
        layer = nn.Linear(shape[1], shape[0]) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], (shape[2], shape[3]))
        place.add_module(leaf, layer)
    return root


def written(tmp_path: Path, family: str, dialect: Dialect, dtype: torch.dtype) -> tuple[Path, Adapter]:
    made = make(tmp_path / "a.safetensors", dialect, family, "LoRA", metadata={"ss_base_model_version": VERSIONS[family]})
    adapter = load_adapter(made.path)
    return save_adapter(adapter, tmp_path / "b.safetensors", dialect, dtype), adapter


def assert_close(got: Tensor, wanted: Tensor, tolerance: float, name: str) -> None:
    assert got.shape == wanted.shape
    assert float((got - wanted).norm()) <= tolerance * float(wanted.norm()) + 1e-9, name


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_lycoris(tmp_path: Path, family: str, dtype: torch.dtype, tolerance: float) -> None:
    path, adapter = written(tmp_path, family, "kohya", dtype)
    weights = {weight.name: weight for weight in DIALECTS["kohya"].weights(family)}
    # It numbers text encoders from 1 on; FLUX.1's second one, T5, is te3 in sd-scripts, so that it never finds it.
    missed = {name for name in weights if family == "flux1" and name.startswith("lora_te3_")}
    models = [_model(prefix, weights) for prefix in PREFIXES if any(name.startswith(prefix) for name in weights)]
    unet, *encoders = models
    texts = encoders if len(encoders) > 1 else next(iter(encoders), nn.Module())
    network, _ = create_network_from_weights(1.0, str(path), None, texts, unet)
    loaded = {module.lora_name: module for module in (*network.unet_loras, *network.text_encoder_loras)}
    assert loaded.keys() == weights.keys() - missed
    for name, module in loaded.items():
        delta = torch.cat([adapter.modules[path].delta() for path in weights[name].modules])
        rows = next(iter(weights[name].modules.values()))
        wanted = delta[rows.argsort()] if isinstance(rows, Tensor) else delta
        assert_close(module.get_diff_weight(shape=wanted.shape)[0].detach(), wanted, tolerance, name)


def _model(prefix: str, weights: dict[str, Weight]) -> nn.Module:
    return tree({name.removeprefix(prefix): weight.shape for name, weight in weights.items() if name.startswith(prefix)})


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_peft(tmp_path: Path, family: str, dtype: torch.dtype, tolerance: float) -> None:
    path, adapter = written(tmp_path, family, "diffusers", dtype)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        fields = json.loads(file.metadata()["lora_adapter_metadata"])
    for part in {name.partition(".")[0] for name in tensors}:
        own = {key.removeprefix(f"{part}."): value for key, value in fields.items() if key.startswith(f"{part}.")}
        model = tree({name.partition(".")[2]: shape for name, shape in shapes(family).items() if name.startswith(f"{part}.")})
        inject_adapter_in_model(LoraConfig(**own), model)
        state = {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{part}.")}
        found = set_peft_model_state_dict(model, state)
        assert not found.unexpected_keys
        layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
        assert {f"{part}.{name}" for name in layers} == {name for name in adapter.modules if name.startswith(f"{part}.")}
        for name, layer in layers.items():
            assert_close(layer.get_delta_weight("default").detach(), adapter.modules[f"{part}.{name}"].delta(), tolerance, name)
