"""Files written by diffusers and PEFT themselves, against the change that PEFT's own layers compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from peft import LoHaConfig, LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from optimizer.adapters import fit_shapes, load_adapter
from optimizer.adapters.names.paths import from_dotted
from tests.tiny import tiny_pipeline, tiny_shapes

TARGETS = ["to_q", "to_k", "to_out.0", "ff.net.0.proj", "proj_in", "conv1", "conv_shortcut", "time_emb_proj"]
TEXT = ["q_proj", "fc2"]


def trained(model: nn.Module, part: str, config: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The model with an adapter of random values: its state, and canonical path → ΔW by PEFT's own layers."""
    inject_adapter_in_model(config, model, "default")
    deltas = {}
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, BaseTunerLayer):
                for parameter in (p for key, p in module.named_parameters() if "lora_" in key or "hada_" in key):
                    nn.init.normal_(parameter, std=0.2)
                path = from_dotted(part, name)
                assert path is not None
                deltas[path] = module.get_delta_weight("default").detach().clone()
    state = get_peft_model_state_dict(model, adapter_name="default")
    return {key: value.detach().contiguous() for key, value in state.items()}, deltas


def assert_read_as(path: Path, deltas: dict[str, Tensor]) -> None:
    adapter = fit_shapes(load_adapter(path), tiny_shapes())
    assert set(adapter.modules) == set(deltas)
    for module, wanted in deltas.items():
        torch.testing.assert_close(adapter.modules[module].delta(), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()), msg=module)


@pytest.mark.parametrize("dialect", ["diffusers", "kohya"])
def test_lora(tmp_path: Path, dialect: str) -> None:
    torch.manual_seed(1)
    pipeline = tiny_pipeline()
    unet, deltas = trained(pipeline.unet, "unet", LoraConfig(r=4, lora_alpha=2, target_modules=TARGETS))
    text, more = trained(pipeline.text_encoder, "text_encoder", LoraConfig(r=2, lora_alpha=8, target_modules=TEXT))
    if dialect == "diffusers":
        StableDiffusionPipeline.save_lora_weights(
            tmp_path,
            unet_lora_layers=unet,
            text_encoder_lora_layers=text,
            weight_name="a.safetensors",
            unet_lora_adapter_metadata={"r": 4, "lora_alpha": 2},
            text_encoder_lora_adapter_metadata={"r": 2, "lora_alpha": 8},
        )
    else:
        tensors = convert_state_dict_to_kohya({f"unet.{k}": v for k, v in unet.items()} | {f"text_encoder.{k}": v for k, v in text.items()})
        alphas = {key: torch.tensor(8.0 if "lora_te" in key else 2.0) for key in tensors if key.endswith(".alpha")}
        save_file(tensors | alphas, tmp_path / "a.safetensors")
    assert_read_as(tmp_path / "a.safetensors", deltas | more)


@pytest.mark.parametrize("tucker", [False, True])
def test_loha(tmp_path: Path, tucker: bool) -> None:
    torch.manual_seed(1)
    config = LoHaConfig(r=2, alpha=3, target_modules=TARGETS, use_effective_conv2d=tucker)
    state, deltas = trained(tiny_pipeline().unet, "unet", config)
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        module, factor = key.rsplit(".", 1)
        tensors |= {
            f"lora_unet_{module.replace('.', '_')}.{factor}": value,
            f"lora_unet_{module.replace('.', '_')}.alpha": torch.tensor(3.0),
        }
    save_file(tensors, tmp_path / "a.safetensors")
    assert_read_as(tmp_path / "a.safetensors", deltas)
