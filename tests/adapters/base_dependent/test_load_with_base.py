"""Kinds that multiply the base weight, read from a file beside the base model's folder, as their own libraries apply them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.lokr import LokrModule
from peft import BOFTConfig, IA3Config, LoKrConfig, LoraConfig, OFTConfig, PeftConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn

from optimizer.adapters import BaseWeights, live_modules, load_adapter
from optimizer.errors import AdapterError, BaseModelError
from tests.files import kohya_name
from tests.formats import WITH_BASE
from tests.tiny import tiny_flux_pipeline, tiny_pipeline, tiny_shapes

BLOCK = "unet.down_blocks.1.attentions.0"
PATHS = (
    f"{BLOCK}.transformer_blocks.0.attn1.to_q",
    f"{BLOCK}.transformer_blocks.0.ff.net.2",
    f"{BLOCK}.proj_in",
    "unet.up_blocks.1.resnets.2.conv1",
    "text_encoder.text_model.encoder.layers.1.mlp.fc1",
)
KINDS: list[tuple[type[Any], dict[str, Any], str]] = [
    (LoConModule, {"lora_dim": 2, "alpha": 1.0, "weight_decompose": True}, "DoRA"),
    (LoConModule, {"lora_dim": 2, "alpha": 1.0, "weight_decompose": True, "wd_on_out": False}, "DoRA"),
    (LokrModule, {"lora_dim": 1, "alpha": 1.0, "weight_decompose": True, "factor": 4}, "DoRA"),
    (IA3Module, {}, "(IA)³"),
    (IA3Module, {"train_on_input": True}, "(IA)³"),
    (DiagOFTModule, {"lora_dim": 4, "rescaled": True}, "OFT or BOFT"),
    (ButterflyOFTModule, {"lora_dim": 8, "constraint": 0.01}, "OFT or BOFT"),
    (GLoRAModule, {"lora_dim": 2, "alpha": 1.0}, "GLoRA"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers pipeline on disk."""
    path = tmp_path_factory.mktemp("base") / "sd"
    tiny_pipeline(seed=3).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def live() -> dict[str, nn.Linear | nn.Conv2d]:
    pipeline = tiny_pipeline(seed=3)
    return live_modules({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder})


def changed(kind: type[Any], base: nn.Module, options: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """A LyCORIS module over a layer, random: its tensors, inputs, and what its forward pass changes of the outputs."""
    module = kind("module", base, 1.0, **options)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "dora" in name or "rescale" in name:
                parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
            else:
                nn.init.normal_(parameter, std=0.2)
        tensors = {key: value.detach().clone() for key, value in module.state_dict().items()}
        weight = base.weight
        assert isinstance(weight, Tensor)
        inputs = torch.eye(weight.shape[1]) if weight.ndim == 2 else torch.randn(40, weight.shape[1], 5, 5)
        before = base(inputs)
        module.apply_to()
        return tensors, inputs, base(inputs) - before


@pytest.mark.parametrize(("kind", "options", "title"), KINDS, ids=[f"{kind.__name__}-{i}" for i, (kind, _, _) in enumerate(KINDS)])
def test_lycoris(tmp_path: Path, folder: Path, kind: type[Any], options: dict[str, Any], title: str) -> None:
    torch.manual_seed(0)
    pipeline = tiny_pipeline(seed=3)
    live = live_modules({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder})
    made = {path: changed(kind, live[path], options) for path in PATHS}
    tensors = {f"{kohya_name(path)}.{key}": value.contiguous() for path, (own, _, _) in made.items() for key, value in own.items()}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=r"which|base weight") as caught:
        load_adapter(tmp_path / "a.safetensors")
    assert f"is {title}, whose change depends on the base weight ({len(PATHS)} modules)" in caught.value.problem
    assert "give the base model's folder" in caught.value.remedy
    adapter = load_adapter(tmp_path / "a.safetensors", base=BaseWeights(folder))
    assert adapter.kinds == {title: len(PATHS)}
    for path, (_, inputs, outputs) in made.items():
        delta = adapter.modules[path].delta()
        assert delta.shape == live[path].weight.shape
        padding = delta.shape[-1] // 2
        got = inputs @ delta.T if delta.ndim == 2 else torch.nn.functional.conv2d(inputs, delta, padding=padding)
        torch.testing.assert_close(got, outputs, rtol=1e-4, atol=1e-5 * float(outputs.abs().max()) + 1e-6)


PEFT: list[Callable[[list[str]], PeftConfig]] = [
    lambda names: LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=names),
    lambda names: IA3Config(target_modules=names, feedforward_modules=[]),
    lambda names: OFTConfig(oft_block_size=4, r=0, target_modules=names, use_cayley_neumann=False),
    lambda names: BOFTConfig(boft_block_size=4, target_modules=names),
    lambda names: LoKrConfig(r=3, alpha=2, target_modules=names, decompose_both=False),
    lambda names: LoKrConfig(r=64, alpha=16, target_modules=names),
]


@pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension", "ignore:Setting boft_n_butterfly_factor")
@pytest.mark.parametrize("configure", PEFT, ids=["DoRA", "IA3", "OFT", "BOFT", "LoKr", "LoKr whole"])
def test_peft(tmp_path: Path, folder: Path, configure: Callable[[list[str]], PeftConfig]) -> None:
    """PEFT's own folder (adapter_model.safetensors beside adapter_config.json) against its own merge."""
    torch.manual_seed(0)
    unet = tiny_pipeline(seed=3).unet
    names = ["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"]
    before = {name: unet.get_submodule(name).weight.detach().clone() for name in names}
    model = get_peft_model(unet, configure(names))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, mean=1.0 if "magnitude" in name else 0.0, std=0.2)
    model.save_pretrained(tmp_path)
    adapter = load_adapter(tmp_path / "adapter_model.safetensors", base=BaseWeights(folder))
    merged = model.merge_and_unload()
    assert isinstance(merged, UNet2DConditionModel)
    assert set(adapter.modules) == {f"unet.{name}" for name in names}
    for name in names:
        wanted = merged.get_submodule(name).weight.detach() - before[name]
        torch.testing.assert_close(adapter.modules[f"unet.{name}"].delta(), wanted, rtol=1e-4, atol=1e-5)


def test_the_table_of_formats_names_these_kinds() -> None:
    lycoris = {"BOFT" if kind is ButterflyOFTModule else title.partition(" or ")[0] for kind, _, title in KINDS}
    peft = {"OFT", "BOFT", "DoRA", "(IA)³"}
    assert {kind: tuple(who for who, own in (("LyCORIS", lycoris), ("PEFT", peft)) if kind in own) for kind in lycoris} == WITH_BASE


def test_rotations_without_their_settings_are_refused(tmp_path: Path, folder: Path) -> None:
    save_file({f"base_model.model.{PATHS[0]}.oft_R.weight": torch.zeros(4, 6)}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=r"oft_R\.weight: stands for different rotations, which only the adapter_config\.json"):
        load_adapter(tmp_path / "a.safetensors", base=BaseWeights(folder))


def test_a_dora_on_fused_projections(tmp_path: Path) -> None:
    """The magnitude has a value for each row of q, k and v together."""
    torch.manual_seed(0)
    pipeline = tiny_flux_pipeline(seed=1)
    pipeline.transformer.save_pretrained(tmp_path / "flux" / "transformer")
    live = live_modules({"transformer": pipeline.transformer})
    paths = [f"transformer.transformer_blocks.1.attn.to_{leaf}" for leaf in "qkv"]
    weight = torch.cat([live[path].weight.detach() for path in paths])
    up, down, scale = torch.randn(48, 2), torch.randn(2, 16), torch.rand(48, 1) + 0.5
    name = "lora_unet_double_blocks_1_img_attn_qkv"
    tensors = {"lora_up.weight": up, "lora_down.weight": down, "dora_scale": scale}
    save_file({f"{name}.{key}": value for key, value in tensors.items()}, tmp_path / "a.safetensors")
    adapter = load_adapter(tmp_path / "a.safetensors", base=BaseWeights(tmp_path / "flux"))
    wanted = scale * (weight + up @ down) / (weight + up @ down).norm(dim=1, keepdim=True) - weight
    assert list(adapter.modules) == sorted(paths)
    for i, path in enumerate(paths):
        torch.testing.assert_close(adapter.modules[path].delta(), wanted[16 * i : 16 * i + 16], rtol=1e-4, atol=1e-5)


def test_the_last_norm_has_its_halves_swapped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pipeline = tiny_flux_pipeline(seed=1)
    pipeline.transformer.save_pretrained(tmp_path / "flux" / "transformer")
    weight = live_modules({"transformer": pipeline.transformer})["transformer.norm_out.linear"].weight.detach()
    scale = torch.rand(32) * 0.1
    name = "lora_unet_final_layer_adaLN_modulation_1"
    save_file({f"{name}.weight": scale, f"{name}.on_input": torch.tensor(0)}, tmp_path / "a.safetensors")
    adapter = load_adapter(tmp_path / "a.safetensors", base=BaseWeights(tmp_path / "flux"))
    torch.testing.assert_close(adapter.modules["transformer.norm_out.linear"].delta(), weight * scale.roll(16)[:, None])


def test_every_weight_of_the_folder_is_the_pipelines(folder: Path, live: dict[str, nn.Linear | nn.Conv2d]) -> None:
    from optimizer.adapters.names.targets import Target

    weights = BaseWeights(folder)
    assert set(live) == set(tiny_shapes())
    for path, module in live.items():
        assert torch.equal(weights.weight(Target((path,))), module.weight)
        assert weights.has_bias(Target((path,))) == (module.bias is not None)


def test_a_base_that_is_none(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BaseModelError, match="holds no safetensors weights of a diffusers pipeline — give the folder of one"):
        BaseWeights(tmp_path)
    path = "unet.down_blocks.9.attentions.0.proj_in"
    tensors = {"lora_up.weight": torch.ones(4, 1), "lora_down.weight": torch.ones(1, 4), "dora_scale": torch.ones(4, 1)}
    save_file({f"{kohya_name(path)}.{key}": value for key, value in tensors.items()}, tmp_path / "a.safetensors")
    with pytest.raises(BaseModelError, match=rf"has no module {path} — use the base model that the source was trained on"):
        load_adapter(tmp_path / "a.safetensors", base=BaseWeights(folder))


def test_peft_settings_of_the_wrong_rank(tmp_path: Path, folder: Path) -> None:
    save_file(
        {f"base_model.model.{PATHS[0]}.lokr_w1": torch.ones(4, 4), f"base_model.model.{PATHS[0]}.lokr_w2": torch.ones(4, 4)},
        tmp_path / "adapter_model.safetensors",
    )
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LOKR", "r": "x", "alpha": 8}))
    with pytest.raises(AdapterError, match=r"lokr_w1: adapter_config\.json gives its rank as 'x'"):
        load_adapter(tmp_path / "adapter_model.safetensors")
