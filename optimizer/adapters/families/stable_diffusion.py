"""Stable Diffusion 1.x and 2.x: U-Nets of four levels with one text encoder, drawn by one pipeline class."""

from __future__ import annotations

from optimizer.adapters.families.blueprint import CLIP_L, Blueprint, Config, clip_config, vae_config
from optimizer.adapters.families.family import Family, sign
from optimizer.adapters.families.pipeline_class import ONE_ENCODER, Drawing, FilePart, PipelineClass
from optimizer.adapters.families.sgm import sgm_names
from optimizer.adapters.families.text_encoders import clip
from optimizer.adapters.families.unets import CROSS_ATTENTION, NOISE, UNET, UNET_PART, reads_text

_TYPES: Config = {
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
}

STABLE_DIFFUSION = PipelineClass(
    name="StableDiffusionPipeline",
    title="SD 1.x and 2.x",
    denoiser="unet",
    denoiser_class="UNet2DConditionModel",
    drawing=Drawing(steps=20, guidance=7.0),
    encoding="sd",
    parts=ONE_ENCODER,
    left_out={"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    clip_layer=1,
    file_parts={
        "unet": UNET_PART,
        "text_encoder": (
            FilePart(conversion="clip", start="cond_stage_model.transformer."),
            FilePart(conversion="open_clip", start="cond_stage_model.model."),
        ),
    },
)


def _sd2(*, size: int, prediction: str) -> Blueprint:
    return Blueprint(
        model="SD 2.x",
        denoiser={
            **_TYPES,
            "sample_size": size // 8,
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
            "upcast_attention": True,  # attention products overflow fp16 with sliced attention
        },
        vae=vae_config(size=size, scale=0.18215),
        texts=(("CLIPTextModel", clip_config(width=1024, layers=23, activation="gelu", projection=512)),),
        scheduler=("DDIMScheduler", {**NOISE, "clip_sample": False, "set_alpha_to_one": False, "prediction_type": prediction}),
    )


SD1 = Family(
    name="sd1",
    title="Stable Diffusion 1.x",
    pipeline=STABLE_DIFFUSION,
    modules=UNET,
    native=sgm_names(4, plain_upsampling=(0,)),
    text_encoders=(clip("text_encoder", "lora_te_", "clip_l"),),
    kohya_native=False,
    convolutions=("proj_in", "proj_out"),
    signs=(reads_text(768),),
    text_readers=CROSS_ATTENTION,
    levels=4,
    versions=("sd_v1", "sd_1"),
    architecture="stable-diffusion-v1",
    architectures=("stable-diffusion-v1",),
    implementation="diffusers",
    resolution="512x512",
    blueprints={
        "v1": Blueprint(
            model="SD 1.x",
            denoiser={**_TYPES, "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
            vae=vae_config(size=512, scale=0.18215),
            texts=(("CLIPTextModel", CLIP_L),),
            scheduler=("PNDMScheduler", {**NOISE, "skip_prk_steps": True, "set_alpha_to_one": False}),
        )
    },
)

SD2 = Family(
    name="sd2",
    title="Stable Diffusion 2.x",
    pipeline=STABLE_DIFFUSION,
    modules=UNET,
    native=sgm_names(4, plain_upsampling=(0,)),
    text_encoders=(clip("text_encoder", "lora_te_", "clip_h"),),
    kohya_native=False,
    signs=(reads_text(1024), sign("text_encoder.text_model.*.(self_attn.*|mlp.fc1)", {1024}, "its text encoder has width")),
    text_readers=CROSS_ATTENTION,
    levels=4,
    versions=("sd_v2", "sd_2"),
    v2=True,
    architecture="stable-diffusion-v2-512",
    architectures=("stable-diffusion-v2",),
    implementation="diffusers",
    resolution="512x512",
    # diffusers' model type is "v2" for both; "v2-base" is the variant that predicts noise, of equal shapes.
    blueprints={"v2": _sd2(size=768, prediction="v_prediction"), "v2-base": _sd2(size=512, prediction="epsilon")},
)
