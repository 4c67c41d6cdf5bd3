"""Qwen-Image: a transformer of 60 joint blocks and a language model as text encoder, for which no trainer makes a LoRA.

The original code, musubi-tuner, ComfyUI and diffusers all use the same names (diffusers'
``_convert_non_diffusers_qwen_lora_to_diffusers`` only replaces the underscores).
"""

from __future__ import annotations

from itertools import product

from optimizer.adapters.families.family import Family, Native, Run, sign
from optimizer.adapters.families.pipeline_class import Drawing, PipelineClass

_BLOCK = "transformer_blocks.#"
_ATTENTION = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out")
_MODULES = (
    *(f"{_BLOCK}.attn.{leaf}" for leaf in _ATTENTION),
    *(f"{_BLOCK}.{side}_{leaf}" for side, leaf in product(("img", "txt"), ("mlp.net.0.proj", "mlp.net.2", "mod.1"))),
    *("img_in", "txt_in", "norm_out.linear", "proj_out"),
    *(f"time_text_embed.timestep_embedder.{leaf}" for leaf in ("linear_1", "linear_2")),
)

QWEN_IMAGE = Family(
    name="qwen-image",
    title="Qwen-Image",
    pipeline=PipelineClass(
        name="QwenImagePipeline",
        title="Qwen-Image",
        denoiser="transformer",
        denoiser_class="QwenImageTransformer2DModel",
        drawing=Drawing(steps=50, guidance=4.0),
    ),
    modules=_MODULES,
    native={module: Native((module,)) for module in _MODULES},
    text_encoders=(),
    signs=(
        sign(f"transformer.{_BLOCK}.(attn.*|(img|txt)_mod.1|(img|txt)_mlp.net.0.proj)", {3072}, "its width is"),
        sign("transformer.txt_in", {3584}, "it reads text of width"),
    ),
    text_readers=("attn.add_k_proj", "attn.add_v_proj"),
    runs=(Run("JOINT_", _BLOCK, 60),),
    versions=("qwen_image", "qwen-image"),
    architecture="Qwen-Image",
    architectures=("qwen-image",),
    implementation="https://github.com/QwenLM/Qwen-Image",
    network="networks.lora_qwen_image",
)
