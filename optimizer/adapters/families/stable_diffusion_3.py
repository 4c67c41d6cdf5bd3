"""Stable Diffusion 3 and 3.5: a transformer of joint image and text blocks, and three text encoders.

The original names are those of Stability's ``sd3.5`` code, which sd-scripts and ComfyUI share; the correspondence is that of diffusers'
``convert_sd3_transformer_checkpoint_to_diffusers``. The text norm of the last block has two chunks, the norms of other blocks six
or nine; ``swapped`` therefore applies only if rows = 2 · columns.
"""

from __future__ import annotations

from typing import Any

from optimizer.adapters.families.blueprint import CLIP_G, CLIP_L, T5_XXL, Blueprint, vae_config
from optimizer.adapters.families.family import Family, Native, Run, sign
from optimizer.adapters.families.pipeline_class import TWO_ENCODERS, Drawing, FilePart, PipelineClass
from optimizer.adapters.families.text_encoders import clip, t5

_THREE = (1, 1, 1)
_BLOCK = "transformer_blocks.#"


def _qkv(attention: str, *leaves: str) -> Native:
    return Native(tuple(f"{_BLOCK}.{attention}.{leaf}" for leaf in leaves), _THREE)


_NATIVE = {
    "joint_blocks.#.x_block.attn.qkv": _qkv("attn", "to_q", "to_k", "to_v"),
    "joint_blocks.#.x_block.attn.proj": Native((f"{_BLOCK}.attn.to_out.0",)),
    "joint_blocks.#.x_block.attn2.qkv": _qkv("attn2", "to_q", "to_k", "to_v"),
    "joint_blocks.#.x_block.attn2.proj": Native((f"{_BLOCK}.attn2.to_out.0",)),
    "joint_blocks.#.x_block.mlp.fc1": Native((f"{_BLOCK}.ff.net.0.proj",)),
    "joint_blocks.#.x_block.mlp.fc2": Native((f"{_BLOCK}.ff.net.2",)),
    "joint_blocks.#.x_block.adaLN_modulation.1": Native((f"{_BLOCK}.norm1.linear",)),
    "joint_blocks.#.context_block.attn.qkv": _qkv("attn", "add_q_proj", "add_k_proj", "add_v_proj"),
    "joint_blocks.#.context_block.attn.proj": Native((f"{_BLOCK}.attn.to_add_out",)),
    "joint_blocks.#.context_block.mlp.fc1": Native((f"{_BLOCK}.ff_context.net.0.proj",)),
    "joint_blocks.#.context_block.mlp.fc2": Native((f"{_BLOCK}.ff_context.net.2",)),
    "joint_blocks.#.context_block.adaLN_modulation.1": Native((f"{_BLOCK}.norm1_context.linear",), swapped=True),
    "x_embedder.proj": Native(("pos_embed.proj",)),
    "context_embedder": Native(("context_embedder",)),
    "t_embedder.mlp.0": Native(("time_text_embed.timestep_embedder.linear_1",)),
    "t_embedder.mlp.2": Native(("time_text_embed.timestep_embedder.linear_2",)),
    "y_embedder.mlp.0": Native(("time_text_embed.text_embedder.linear_1",)),
    "y_embedder.mlp.2": Native(("time_text_embed.text_embedder.linear_2",)),
    "final_layer.adaLN_modulation.1": Native(("norm_out.linear",), swapped=True),
    "final_layer.linear": Native(("proj_out",)),
}


def _blueprint(*, model: str, layers: int, positions: int, **more: Any) -> Blueprint:
    """Returns the configuration of a model, whose transformer has as many attention heads as layers."""
    width = {"num_layers": layers, "num_attention_heads": layers, "caption_projection_dim": 64 * layers}
    latents = {"sample_size": 128, "in_channels": 16, "out_channels": 16}
    return Blueprint(
        model=model,
        denoiser={**latents, "pooled_projection_dim": 2048, **width, "attention_head_dim": 64, "pos_embed_max_size": positions, **more},
        vae=vae_config(size=1024, scale=1.5305, shift=0.0609, channels=16),
        texts=(("CLIPTextModelWithProjection", CLIP_L), ("CLIPTextModelWithProjection", CLIP_G), ("T5EncoderModel", T5_XXL)),
        scheduler=("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    )


SD3 = Family(
    name="sd3",
    title="Stable Diffusion 3",
    pipeline=PipelineClass(
        name="StableDiffusion3Pipeline",
        title="SD 3.x",
        denoiser="transformer",
        denoiser_class="SD3Transformer2DModel",
        drawing=Drawing(steps=28, guidance=4.5),
        encoding="sd3",
        parts=TWO_ENCODERS,
        optional=("text_encoder_3", "tokenizer_3"),
        clip_layer=2,
        half="bf16",
        t5_tokenizer="tokenizer_3",
        t5_length=256,
        file_parts={
            "transformer": (FilePart(conversion="sd3", start="model.diffusion_model.", whole=True),),
            "text_encoder": (FilePart(conversion="clip", start="text_encoders.clip_l.transformer.", projects=True, identity=True),),
            "text_encoder_2": (FilePart(conversion="clip", start="text_encoders.clip_g.transformer.", projects=True),),
            "text_encoder_3": (FilePart(conversion="t5", start="text_encoders.t5xxl.transformer."),),
        },
    ),
    modules=tuple(module for native in _NATIVE.values() for module in native.modules),
    native=_NATIVE,
    text_encoders=(
        clip("text_encoder", "lora_te1_", "clip_l"),
        clip("text_encoder_2", "lora_te2_", "clip_g"),
        t5("text_encoder_3", "lora_te3_"),
    ),
    signs=(sign(f"transformer.{_BLOCK}.(attn2?|norm1|norm1_context|ff.net.0|ff_context.net.0).*", {1536, 2432}, "its width is"),),
    text_readers=("attn.add_k_proj", "attn.add_v_proj"),
    runs=(Run("JOINT_", "transformer_blocks.#", 38),),
    versions=("sd3", "medium", "5-medium", "5-large"),
    architecture="stable-diffusion-3",
    architectures=("stable-diffusion-3", "stable-diffusion-v3"),
    implementation="https://github.com/Stability-AI/sd3.5",
    network="networks.lora_sd3",
    blueprints={
        "sd3": _blueprint(model="SD 3", layers=24, positions=192),
        "sd35_medium": _blueprint(model="SD 3.5", layers=24, positions=384, qk_norm="rms_norm", dual_attention_layers=list(range(13))),
        "sd35_large": _blueprint(model="SD 3.5", layers=38, positions=192, qk_norm="rms_norm"),
    },
)
