"""Tiny, real pipelines with random weights and a tokenizer of their own, laid out as Stable Diffusion 1.5 and XL are."""

from __future__ import annotations

from functools import cache

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

MAX_TOKENS = 16


def tiny_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer without merges: every letter is one token."""
    letters = sorted(ByteLevel.alphabet())
    symbols = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=MAX_TOKENS)


def tiny_text_encoder(tokenizer: CLIPTokenizer, width: int = 16, layers: int = 2) -> CLIPTextModel:
    """An untrained CLIP text model over the tokenizer's vocabulary."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).eval()


def tiny_unet(widths: tuple[int, ...] = (16, 16, 24, 24), cross: int = 16) -> UNet2DConditionModel:
    """An untrained U-Net: cross-attention in every level but the last, two layers each, as in SD 1.5."""
    levels = len(widths)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=widths,
        layers_per_block=2,
        cross_attention_dim=cross,
        attention_head_dim=4,
        norm_num_groups=8,
        down_block_types=(*("CrossAttnDownBlock2D",) * (levels - 1), "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * (levels - 1)),
    ).eval()


def tiny_vae(shift: float | None = None) -> AutoencoderKL:
    """An untrained autoencoder that halves the size once; those of later models shift their latents."""
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        shift_factor=shift,
    ).eval()


def tiny_pipeline(seed: int = 0, widths: tuple[int, ...] = (16, 16, 24, 24), cross: int = 16) -> StableDiffusionPipeline:
    """A new pipeline whose weights depend on the seed alone; pictures are 16 × 16.

    Args:
        seed: seeds the random weights.
        widths: channels of the U-Net's levels, multiples of 8.
        cross: width of the text encoder and of cross-attention, a multiple of 4.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        pipeline = StableDiffusionPipeline(
            vae=tiny_vae(),
            text_encoder=tiny_text_encoder(tokenizer, cross),
            tokenizer=tokenizer,
            unet=tiny_unet(widths, cross),
            scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_v2_pipeline(seed: int = 0, cross: int = 16) -> StableDiffusionPipeline:
    """One laid out as Stable Diffusion 2: linear projections, another number of heads in every level, OpenCLIP's activation, velocities."""
    pipeline = tiny_pipeline(seed, cross=cross)
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        config = dict(pipeline.unet.config) | {"use_linear_projection": True, "attention_head_dim": [1, 2, 4, 4], "upcast_attention": True}
        text = pipeline.text_encoder.config.to_dict() | {"hidden_act": "gelu"}
        pipeline.register_modules(
            unet=UNet2DConditionModel.from_config(config).eval(),
            text_encoder=CLIPTextModel(CLIPTextConfig(**text)).eval(),
            scheduler=DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type="v_prediction"),
        )
    return pipeline


def tiny_xl_unet(width: int = 16) -> UNet2DConditionModel:
    """An untrained U-Net laid out as that of Stable Diffusion XL: three levels, none of them with attention at full size, up to two
    transformer blocks in one attention, an embedding of the pooled text and the picture's size."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(width, width, 24),
        layers_per_block=2,
        cross_attention_dim=2 * width,
        attention_head_dim=4,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=width + 6 * 4,
    ).eval()


def tiny_xl_pipeline(seed: int = 0, width: int = 16) -> StableDiffusionXLPipeline:
    """A new pipeline of Stable Diffusion XL's kind, with two text encoders, whose weights depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        first = tiny_text_encoder(tokenizer, width)
        pipeline = StableDiffusionXLPipeline(
            vae=tiny_vae(),
            text_encoder=first,
            text_encoder_2=CLIPTextModelWithProjection(first.config).eval(),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=tiny_xl_unet(width),
            scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
            add_watermarker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_t5(width: int = 16) -> T5EncoderModel:
    """An untrained T5 encoder of version 1.1, whose feed-forward layers are gated."""
    config = T5Config(d_model=width, d_kv=4, d_ff=2 * width, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu", vocab_size=64)
    return T5EncoderModel(config).eval()


def tiny_t5_tokenizer() -> T5Tokenizer:
    """T5's tokenizer with a vocabulary of letters."""
    letters = [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz,."]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=256)


def tiny_sd3_pipeline(seed: int = 0, width: int = 16) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5's kind: three joint blocks, the first one with a second attention."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        first = tiny_text_encoder(tokenizer, width)
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=3,
            attention_head_dim=width // 4,
            num_attention_heads=4,
            joint_attention_dim=width,
            caption_projection_dim=width,
            pooled_projection_dim=2 * width,
            out_channels=4,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ).eval()
        return StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=tiny_vae(0.1),
            text_encoder=CLIPTextModelWithProjection(first.config).eval(),
            tokenizer=tokenizer,
            text_encoder_2=CLIPTextModelWithProjection(first.config).eval(),
            tokenizer_2=tokenizer,
            text_encoder_3=tiny_t5(width),
            tokenizer_3=tiny_t5_tokenizer(),
        )


def tiny_flux_transformer(width: int = 16, guidance: bool = True) -> FluxTransformer2DModel:
    """An untrained transformer of FLUX.1's kind with two double and two single blocks."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=width // 2,
        num_attention_heads=2,
        joint_attention_dim=width,
        pooled_projection_dim=width,
        guidance_embeds=guidance,
        axes_dims_rope=(width // 2 - 4, 2, 2),
    ).eval()


def tiny_flux_pipeline(seed: int = 0, width: int = 16, guidance: bool = True) -> FluxPipeline:
    """FLUX.1's kind: dev's with an input for guidance, schnell's without."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        return FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=tiny_vae(0.1),
            text_encoder=tiny_text_encoder(tokenizer, width),
            tokenizer=tokenizer,
            text_encoder_2=tiny_t5(width),
            tokenizer_2=tiny_t5_tokenizer(),
            transformer=tiny_flux_transformer(width, guidance),
        )


def tiny_qwen_pipeline(seed: int = 0, width: int = 16) -> QwenImagePipeline:
    """Qwen-Image's kind: the transformer alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=width // 2,
            num_attention_heads=2,
            joint_attention_dim=width,
            axes_dims_rope=(2, 2, 4),
        ).eval()
        return QwenImagePipeline(FlowMatchEulerDiscreteScheduler(), None, None, None, transformer)


@cache
def tiny_shapes() -> dict[str, tuple[int, ...]]:
    """Canonical path → weight shape of every linear and convolution module of the tiny pipeline."""
    from optimizer.adapters import weight_shapes

    pipeline = tiny_pipeline()
    return weight_shapes({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder})
