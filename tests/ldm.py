"""Single files: pipelines of diffusers in the layout of the models' original code, as A1111 and ComfyUI keep them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

State = Mapping[str, Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
}
_VAE = (
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0\.group_norm", lambda m: "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])", lambda m: f"mid.attn_1.{m[1]}"),
    (r"mid_block\.attentions\.0\.to_out\.0", lambda m: "mid.attn_1.proj_out"),
    (r"down_blocks\.(\d)\.resnets", lambda m: f"down.{m[1]}.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", lambda m: f"down.{m[1]}.downsample"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{m[1]}.upsample"),
    (r"up_blocks\.(\d)\.resnets", lambda m: f"up.{m[1]}.block"),
    (r"conv_shortcut", lambda m: "nin_shortcut"),
    (r"conv_norm_out", lambda m: "norm_out"),
)


def save_single_file(pipeline: Any, path: Path, **marks: Tensor) -> Path:
    """Write a pipeline of Stable Diffusion 1, XL or 3, or of FLUX.1, as one safetensors file, with further tensors beside its own."""
    makers = {"StableDiffusionPipeline": _sd1, "StableDiffusionXLPipeline": _xl, "StableDiffusion3Pipeline": _sd3, "FluxPipeline": _flux}
    parts = makers[type(pipeline).__name__](pipeline)
    tensors = {name: tensor.clone().contiguous() for name, tensor in parts.items()} | marks
    save_file(tensors, path)
    return path


def _sd1(pipeline: Any) -> dict[str, Tensor]:
    return {
        **prefixed("model.diffusion_model.", ldm_unet(pipeline.unet.state_dict())),
        **prefixed("first_stage_model.", ldm_vae(pipeline.vae.state_dict())),
        **prefixed("cond_stage_model.transformer.", clip(pipeline.text_encoder.state_dict())),
    }


def _xl(pipeline: Any) -> dict[str, Tensor]:
    return {
        **prefixed("model.diffusion_model.", ldm_unet(pipeline.unet.state_dict())),
        **prefixed("first_stage_model.", ldm_vae(pipeline.vae.state_dict())),
        **prefixed("conditioner.embedders.0.transformer.", clip(pipeline.text_encoder.state_dict())),
        **prefixed("conditioner.embedders.1.model.", open_clip(clip(pipeline.text_encoder_2.state_dict()))),
    }


def _sd3(pipeline: Any) -> dict[str, Tensor]:
    return {
        **prefixed("model.diffusion_model.", original_sd3(pipeline.transformer.state_dict())),
        **prefixed("first_stage_model.", ldm_vae(pipeline.vae.state_dict())),
        **prefixed("text_encoders.clip_l.transformer.", clip(pipeline.text_encoder.state_dict())),
        **prefixed("text_encoders.clip_g.transformer.", clip(pipeline.text_encoder_2.state_dict())),
        **({} if pipeline.text_encoder_3 is None else prefixed("text_encoders.t5xxl.transformer.", pipeline.text_encoder_3.state_dict())),
    }


def prefixed(prefix: str, state: State) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def clip(state: State) -> dict[str, Tensor]:
    """With the level that transformers has left out since its fifth version."""
    return {name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}": t for name, t in state.items()}


def ldm_unet(state: State, layers: int = 2) -> dict[str, Tensor]:
    """A U-Net in the layout of CompVis' latent diffusion: blocks numbered through, in and out."""
    with_attention = {name.split(".")[1] for name in state if name.startswith("up_blocks") and ".attentions." in name}
    return {_unet_name(name, layers, with_attention): tensor for name, tensor in state.items()}


def _unet_name(name: str, layers: int, with_attention: set[str]) -> str:
    for ours, theirs in _UNET.items():
        if name.startswith(ours):
            return name.replace(ours, theirs, 1)
    if name.startswith("mid_block"):
        _, kind, index, rest = name.split(".", 3)
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}." + (_resnet(rest) if kind == "resnets" else rest)
    side, block, kind, index, rest = name.split(".", 4)
    if kind == "downsamplers":
        return f"input_blocks.{(int(block) + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{int(block) * (layers + 1) + layers}.{2 if block in with_attention else 1}.{rest}"
    number = int(block) * (layers + 1) + int(index) + (1 if side == "down_blocks" else 0)
    place = f"{'input' if side == 'down_blocks' else 'output'}_blocks.{number}.{1 if kind == 'attentions' else 0}"
    return f"{place}.{rest if kind == 'attentions' else _resnet(rest)}"


def _resnet(rest: str) -> str:
    part, _, leaf = rest.rpartition(".")
    return f"{_RESNET[part]}.{leaf}"


def ldm_vae(state: State, levels: int = 2) -> dict[str, Tensor]:
    """An autoencoder; its attention is made of 1 × 1 convolutions there, and its levels are counted from the finest."""
    found = {}
    for name, tensor in state.items():
        other = re.sub(r"up_blocks\.(\d)", lambda m: f"up_blocks.{levels - 1 - int(m[1])}", name)
        for pattern, made in _VAE:
            other = re.sub(pattern, made, other)
        attention = ".attn_1." in other and not other.endswith(("norm.weight", "norm.bias", ".bias"))
        found[other] = tensor[:, :, None, None] if attention else tensor
    return found


def open_clip(state: State) -> dict[str, Tensor]:
    """OpenCLIP's text tower: queries, keys and values in one tensor, the projection the other way round."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if match is None:
            top = {
                "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
                "text_model.embeddings.position_embedding.weight": "positional_embedding",
                "text_model.final_layer_norm.weight": "ln_final.weight",
                "text_model.final_layer_norm.bias": "ln_final.bias",
            }
            if name == "text_projection.weight":
                found["text_projection"] = tensor.T
            elif name in top:
                found[top[name]] = tensor
            continue
        index, part, leaf = match.groups()
        block = f"transformer.resblocks.{index}"
        if part == "self_attn.q_proj":
            three = [state[name.replace("q_proj", f"{k}_proj")] for k in "qkv"]
            found[f"{block}.attn.in_proj_{leaf}"] = torch.cat(three)
        elif part not in ("self_attn.k_proj", "self_attn.v_proj"):
            names = {"self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
            names |= {"layer_norm1": "ln_1", "layer_norm2": "ln_2"}
            found[f"{block}.{names[part]}.{leaf}"] = tensor
    return found


_SD3_TOP = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj.": "x_embedder.proj.",
    "time_text_embed.timestep_embedder.linear_1.": "t_embedder.mlp.0.",
    "time_text_embed.timestep_embedder.linear_2.": "t_embedder.mlp.2.",
    "time_text_embed.text_embedder.linear_1.": "y_embedder.mlp.0.",
    "time_text_embed.text_embedder.linear_2.": "y_embedder.mlp.2.",
    "context_embedder.": "context_embedder.",
    "proj_out.": "final_layer.linear.",
}
_SD3_BLOCK = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_FUSED = {
    "attn.to_q": ("x_block.attn.qkv", "attn.to_{}"),
    "attn2.to_q": ("x_block.attn2.qkv", "attn2.to_{}"),
    "attn.add_q_proj": ("context_block.attn.qkv", "attn.add_{}_proj"),
}


def original_sd3(state: State) -> dict[str, Tensor]:
    """The transformer of Stable Diffusion 3: queries, keys and values in one tensor, shift before scale at the end."""
    found: dict[str, Tensor] = {}
    last = max(int(name.split(".")[1]) for name in state if name.startswith("transformer_blocks."))
    for name, tensor in state.items():
        if name.startswith("norm_out.linear"):
            found[name.replace("norm_out.linear", "final_layer.adaLN_modulation.1")] = _swapped(tensor)
        elif not name.startswith("transformer_blocks."):
            ours = next(key for key in _SD3_TOP if name.startswith(key))
            found[name.replace(ours, _SD3_TOP[ours], 1)] = tensor
        else:
            _, index, rest = name.split(".", 2)
            part, _, leaf = rest.rpartition(".")
            place = f"joint_blocks.{index}."
            if part in _FUSED:
                target, pattern = _FUSED[part]
                three = [state[f"transformer_blocks.{index}.{pattern.format(k)}.{leaf}"] for k in "qkv"]
                found[f"{place}{target}.{leaf}"] = torch.cat(three)
            elif part in _SD3_BLOCK:
                turned = int(index) == last and part == "norm1_context.linear"
                found[f"{place}{_SD3_BLOCK[part]}.{leaf}"] = _swapped(tensor) if turned else tensor
    return found


def _swapped(tensor: Tensor) -> Tensor:
    first, second = tensor.chunk(2)
    return torch.cat([second, first])


_FLUX_TOP = {
    "time_text_embed.timestep_embedder.linear_1.": "time_in.in_layer.",
    "time_text_embed.timestep_embedder.linear_2.": "time_in.out_layer.",
    "time_text_embed.text_embedder.linear_1.": "vector_in.in_layer.",
    "time_text_embed.text_embedder.linear_2.": "vector_in.out_layer.",
    "time_text_embed.guidance_embedder.linear_1.": "guidance_in.in_layer.",
    "time_text_embed.guidance_embedder.linear_2.": "guidance_in.out_layer.",
    "context_embedder.": "txt_in.",
    "x_embedder.": "img_in.",
    "proj_out.": "final_layer.linear.",
}
_FLUX_BLOCKS = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
    "norm.linear": "modulation.lin",
    "proj_out": "linear2",
}
_FLUX_SCALES = {
    "double_blocks": {
        "attn.norm_q": "img_attn.norm.query_norm",
        "attn.norm_k": "img_attn.norm.key_norm",
        "attn.norm_added_q": "txt_attn.norm.query_norm",
        "attn.norm_added_k": "txt_attn.norm.key_norm",
    },
    "single_blocks": {"attn.norm_q": "norm.query_norm", "attn.norm_k": "norm.key_norm"},
}
_FLUX_FUSED = {
    ("double_blocks", "attn.to_q"): ("img_attn.qkv", ("attn.to_q", "attn.to_k", "attn.to_v")),
    ("double_blocks", "attn.add_q_proj"): ("txt_attn.qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
    ("single_blocks", "attn.to_q"): ("linear1", ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")),
}


def original_flux(state: State) -> dict[str, Tensor]:
    """The transformer of FLUX.1: queries, keys and values in one tensor, in single blocks with the MLP's, shift before scale at the end."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("norm_out.linear"):
            found[name.replace("norm_out.linear", "final_layer.adaLN_modulation.1")] = _swapped(tensor)
            continue
        if not name.startswith(("transformer_blocks.", "single_transformer_blocks.")):
            ours = next(key for key in _FLUX_TOP if name.startswith(key))
            found[name.replace(ours, _FLUX_TOP[ours], 1)] = tensor
            continue
        blocks, index, rest = name.split(".", 2)
        kind = "double_blocks" if blocks == "transformer_blocks" else "single_blocks"
        part, _, leaf = rest.rpartition(".")
        place = f"{kind}.{index}."
        if (kind, part) in _FLUX_FUSED:
            target, parts = _FLUX_FUSED[kind, part]
            found[f"{place}{target}.{leaf}"] = torch.cat([state[f"{blocks}.{index}.{one}.{leaf}"] for one in parts])
        elif part in _FLUX_SCALES[kind]:
            found[f"{place}{_FLUX_SCALES[kind][part]}.scale"] = tensor
        elif part in _FLUX_BLOCKS:
            found[f"{place}{_FLUX_BLOCKS[part]}.{leaf}"] = tensor
    return found


def _flux(pipeline: Any) -> dict[str, Tensor]:
    return {
        **prefixed("model.diffusion_model.", original_flux(pipeline.transformer.state_dict())),
        **prefixed("vae.", ldm_vae(pipeline.vae.state_dict())),
        **prefixed("text_encoders.clip_l.transformer.", clip(pipeline.text_encoder.state_dict())),
        **prefixed("text_encoders.t5xxl.transformer.", pipeline.text_encoder_2.state_dict()),
    }
