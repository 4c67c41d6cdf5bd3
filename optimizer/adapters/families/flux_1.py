"""FLUX.1: a transformer of 19 double blocks (separate image and text streams) and 38 single blocks (joint stream), CLIP and T5.

The original names are those of Black Forest Labs' ``flux`` code, which sd-scripts, ComfyUI and FLUX's own control adapters share; the
correspondence is that of diffusers' ``_convert_kohya_flux_lora_to_diffusers`` and ``_convert_bfl_flux_control_lora_to_diffusers``.
XLabs' trainer attaches its factors to the attention processors: ``qkv_lora1`` and ``proj_lora1`` for the image stream, ``qkv_lora2``
and ``proj_lora2`` for the text stream. In a single block, ``qkv_lora`` covers the rows of q, k and v in ``linear1``, and ``proj_lora``
is for ``linear2`` (``_convert_xlabs_flux_lora_to_diffusers``).
"""

from __future__ import annotations

from typing import Any

from optimizer.adapters.families.blueprint import CLIP_L, T5_XXL, Blueprint, vae_config
from optimizer.adapters.families.family import Family, Native, Run, sign
from optimizer.adapters.families.pipeline_class import TWO_ENCODERS, Drawing, FilePart, PipelineClass
from optimizer.adapters.families.text_encoders import clip, t5

_DOUBLE, _SINGLE = "transformer_blocks.#", "single_transformer_blocks.#"
_PICTURE = tuple(f"{_DOUBLE}.attn.{leaf}" for leaf in ("to_q", "to_k", "to_v"))
_TEXT = tuple(f"{_DOUBLE}.attn.{leaf}" for leaf in ("add_q_proj", "add_k_proj", "add_v_proj"))
_BOTH = tuple(f"{_SINGLE}.attn.{leaf}" for leaf in ("to_q", "to_k", "to_v"))
_THREE = (1, 1, 1)

_NATIVE = {
    "double_blocks.#.img_attn.qkv": Native(_PICTURE, _THREE),
    "double_blocks.#.img_attn.proj": Native((f"{_DOUBLE}.attn.to_out.0",)),
    "double_blocks.#.img_mlp.0": Native((f"{_DOUBLE}.ff.net.0.proj",)),
    "double_blocks.#.img_mlp.2": Native((f"{_DOUBLE}.ff.net.2",)),
    "double_blocks.#.img_mod.lin": Native((f"{_DOUBLE}.norm1.linear",)),
    "double_blocks.#.txt_attn.qkv": Native(_TEXT, _THREE),
    "double_blocks.#.txt_attn.proj": Native((f"{_DOUBLE}.attn.to_add_out",)),
    "double_blocks.#.txt_mlp.0": Native((f"{_DOUBLE}.ff_context.net.0.proj",)),
    "double_blocks.#.txt_mlp.2": Native((f"{_DOUBLE}.ff_context.net.2",)),
    "double_blocks.#.txt_mod.lin": Native((f"{_DOUBLE}.norm1_context.linear",)),
    "single_blocks.#.linear1": Native((*_BOTH, f"{_SINGLE}.proj_mlp"), (*_THREE, 4)),
    "single_blocks.#.linear2": Native((f"{_SINGLE}.proj_out",)),
    "single_blocks.#.modulation.lin": Native((f"{_SINGLE}.norm.linear",)),
    "img_in": Native(("x_embedder",)),
    "txt_in": Native(("context_embedder",)),
    "time_in.in_layer": Native(("time_text_embed.timestep_embedder.linear_1",)),
    "time_in.out_layer": Native(("time_text_embed.timestep_embedder.linear_2",)),
    "vector_in.in_layer": Native(("time_text_embed.text_embedder.linear_1",)),
    "vector_in.out_layer": Native(("time_text_embed.text_embedder.linear_2",)),
    "guidance_in.in_layer": Native(("time_text_embed.guidance_embedder.linear_1",)),
    "guidance_in.out_layer": Native(("time_text_embed.guidance_embedder.linear_2",)),
    "final_layer.adaLN_modulation.1": Native(("norm_out.linear",), swapped=True),
    "final_layer.linear": Native(("proj_out",)),
}
_XLABS = {
    "double_blocks.#.processor.qkv_lora1": Native(_PICTURE, _THREE),
    "double_blocks.#.processor.qkv_lora2": Native(_TEXT, _THREE),
    "double_blocks.#.processor.proj_lora1": Native((f"{_DOUBLE}.attn.to_out.0",)),
    "double_blocks.#.processor.proj_lora2": Native((f"{_DOUBLE}.attn.to_add_out",)),
    "single_blocks.#.processor.qkv": Native(_BOTH, _THREE),
    "single_blocks.#.processor.proj": Native((f"{_SINGLE}.proj_out",)),
}


def _blueprint(*, guidance: bool, **schedule: Any) -> Blueprint:
    return Blueprint(
        model="FLUX.1",
        denoiser={"guidance_embeds": guidance},
        vae=vae_config(size=1024, scale=0.3611, shift=0.1159, channels=16),
        texts=(("CLIPTextModel", CLIP_L), ("T5EncoderModel", T5_XXL)),
        scheduler=("FlowMatchEulerDiscreteScheduler", {"base_shift": 0.5, "max_shift": 1.15, **schedule}),
    )


FLUX1 = Family(
    name="flux1",
    title="FLUX.1",
    pipeline=PipelineClass(
        name="FluxPipeline",
        title="FLUX.1",
        denoiser="transformer",
        denoiser_class="FluxTransformer2DModel",
        drawing=Drawing(steps=28, guidance=3.5),
        encoding="flux",
        parts=TWO_ENCODERS,
        negates=False,
        packed=True,
        half="bf16",
        chunked=False,
        t5_tokenizer="tokenizer_2",
        t5_length=512,
        file_parts={
            "transformer": (FilePart(conversion="flux", start="model.diffusion_model.", whole=True),),
            "text_encoder": (FilePart(conversion="clip", start="text_encoders.clip_l.transformer."),),
            "text_encoder_2": (FilePart(conversion="t5", start="text_encoders.t5xxl.transformer."),),
        },
    ),
    modules=tuple(module for native in _NATIVE.values() for module in native.modules),
    native=_NATIVE,
    foreign=_XLABS,
    text_encoders=(clip("text_encoder", "lora_te1_", "clip_l"), t5("text_encoder_2", "lora_te3_")),
    signs=(
        sign(f"transformer.{_DOUBLE}.(attn|norm1|norm1_context|ff.net.0|ff_context.net.0).*", {3072}, "its width is"),
        sign(f"transformer.{_SINGLE}.(attn.*|norm.*|proj_mlp)", {3072}, "its width is"),
    ),
    text_readers=("attn.add_k_proj", "attn.add_v_proj"),
    runs=(Run("DOUBLE_", "transformer_blocks.#", 19), Run("SINGLE_", "single_transformer_blocks.#", 38)),
    versions=("flux1",),
    architecture="flux-1-dev",
    architectures=("flux-1", "flux.1"),
    implementation="https://github.com/black-forest-labs/flux",
    network="networks.lora_flux",
    blueprints={
        "flux-dev": _blueprint(guidance=True, shift=3.0, use_dynamic_shifting=True),
        "flux-schnell": _blueprint(guidance=False, shift=1.0, use_dynamic_shifting=False),
    },
)
