"""Stable Diffusion XL: a U-Net of three levels with two text encoders."""

from __future__ import annotations

from optimizer.adapters.families.blueprint import CLIP_G, CLIP_L, Blueprint, Config, vae_config
from optimizer.adapters.families.family import Family
from optimizer.adapters.families.pipeline_class import TWO_ENCODERS, Drawing, FilePart, PipelineClass
from optimizer.adapters.families.sgm import sgm_names
from optimizer.adapters.families.text_encoders import clip
from optimizer.adapters.families.unets import CROSS_ATTENTION, EMBEDDING, NOISE, UNET, UNET_PART, reads_text

_UNET: Config = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}

SDXL = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    pipeline=PipelineClass(
        name="StableDiffusionXLPipeline",
        title="SDXL",
        denoiser="unet",
        denoiser_class="UNet2DConditionModel",
        drawing=Drawing(steps=25, guidance=6.0),
        encoding="sdxl",
        parts=TWO_ENCODERS,
        left_out={"add_watermarker": False},
        clip_layer=2,
        upcasts=True,
        file_parts={
            "unet": UNET_PART,
            "text_encoder": (FilePart(conversion="clip", start="conditioner.embedders.0.transformer."),),
            "text_encoder_2": (FilePart(conversion="open_clip", start="conditioner.embedders.1.model.", projects=True),),
        },
    ),
    modules=(*UNET, *(f"add_embedding.{leaf}" for leaf in EMBEDDING)),
    native=sgm_names(3),
    text_encoders=(clip("text_encoder", "lora_te1_", "clip_l"), clip("text_encoder_2", "lora_te2_", "clip_g")),
    signs=(reads_text(2048),),
    text_readers=CROSS_ATTENTION,
    levels=3,
    versions=("sdxl_base_v1-0", "sdxl"),
    architecture="stable-diffusion-xl-v1-base",
    architectures=("stable-diffusion-xl",),
    implementation="https://github.com/Stability-AI/generative-models",
    blueprints={
        "xl_base": Blueprint(
            model="SDXL",
            denoiser=_UNET,
            vae=vae_config(size=1024, scale=0.13025),
            texts=(("CLIPTextModel", CLIP_L), ("CLIPTextModelWithProjection", CLIP_G)),
            scheduler=("EulerDiscreteScheduler", {**NOISE, "timestep_spacing": "leading"}),
            options={"force_zeros_for_empty_prompt": True},
        )
    },
)
