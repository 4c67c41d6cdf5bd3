"""What the U-Nets of Stable Diffusion 1.x, 2.x and XL have in common: module names, the sign that tells them apart, file layout."""

from __future__ import annotations

from itertools import product

from optimizer.adapters.families.blueprint import Config
from optimizer.adapters.families.family import Sign, sign
from optimizer.adapters.families.pipeline_class import FilePart
from optimizer.adapters.families.sgm import TRANSFORMER

_RESNET = ("conv1", "conv2", "conv_shortcut", "time_emb_proj")
_BLOCK = (
    *(f"attentions.#.{leaf}" for leaf in TRANSFORMER),
    *(f"resnets.#.{leaf}" for leaf in _RESNET),
    "downsamplers.#.conv",
    "upsamplers.#.conv",
)
EMBEDDING = ("linear_1", "linear_2")
UNET = (
    "conv_in",
    "conv_out",
    *(f"time_embedding.{leaf}" for leaf in EMBEDDING),
    *(f"{block}.{leaf}" for block, leaf in product(("down_blocks.#", "mid_block", "up_blocks.#"), _BLOCK)),
)
"""Templates of the modules of every U-Net."""

CROSS_ATTENTION = ("attn2.to_k", "attn2.to_v")
"""Endings of the modules of every U-Net that read the text."""

UNET_PART = (FilePart(conversion="unet", start="model.diffusion_model.", whole=True),)
"""Location of a U-Net in a single file."""

NOISE: Config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
"""Noise schedule that the published models were trained with."""


def reads_text(width: int) -> Sign:
    """Returns the sign of a U-Net whose cross-attention reads text of a width, which cannot be wrong in a file that loads."""
    return sign("unet.*.attn2.to_[kv]", {width}, "its cross-attention reads text of width")
