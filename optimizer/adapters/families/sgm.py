"""U-Net module names of Stability's original code (``sgm``, formerly ``ldm``).

sd-scripts uses these names for Stable Diffusion XL, ComfyUI for every U-Net. Blocks are numbered consecutively over all levels: two
residual blocks and a downsampling per level on the input path, three residual blocks per level on the output path, the last of which
also upsamples. The correspondence is that of diffusers' ``convert_ldm_unet_checkpoint``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from optimizer.adapters.families.family import Native

_ATTENTION = tuple(f"{attention}.{leaf}" for attention, leaf in product(("attn1", "attn2"), ("to_q", "to_k", "to_v", "to_out.0")))
TRANSFORMER = ("proj_in", "proj_out", *(f"transformer_blocks.#.{leaf}" for leaf in (*_ATTENTION, "ff.net.0.proj", "ff.net.2")))
"""Modules of one attention block, with equal names in ``sgm`` and diffusers."""

_RESNET = {"in_layers.2": "conv1", "out_layers.3": "conv2", "emb_layers.1": "time_emb_proj", "skip_connection": "conv_shortcut"}
_SINGLE = {
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}
_LEVEL = 3  # entries per level, on the input and on the output path


def sgm_names(levels: int, plain_upsampling: tuple[int, ...] = ()) -> dict[str, Native]:
    """Returns module template in ``sgm`` → its diffusers module.

    Args:
        levels: number of resolution levels of the U-Net.
        plain_upsampling: levels on the output path that upsample without attention; their upsampling has an index lower by one.
    """
    rows = dict(_SINGLE)
    for level in range(levels):
        rows |= _way_in(level) | _way_out(level, 1 if level in plain_upsampling else 2)
    rows |= {
        **_layer("middle_block.0", None, "mid_block", 0),
        **_layer(None, "middle_block.1", "mid_block", 0),
        **_layer("middle_block.2", None, "mid_block", 1),
    }
    return {native: Native((module,)) for native, module in rows.items()}


def _way_in(level: int) -> dict[str, str]:
    first = _LEVEL * level + 1
    layers = (_layer(f"input_blocks.{first + i}.0", f"input_blocks.{first + i}.1", f"down_blocks.{level}", i) for i in (0, 1))
    down = {f"input_blocks.{first + 2}.0.op": f"down_blocks.{level}.downsamplers.0.conv"}
    return {name: module for rows in (*layers, down) for name, module in rows.items()}


def _way_out(level: int, place: int) -> dict[str, str]:
    first = _LEVEL * level
    layers = (_layer(f"output_blocks.{first + i}.0", f"output_blocks.{first + i}.1", f"up_blocks.{level}", i) for i in (0, 1, 2))
    up = {f"output_blocks.{first + 2}.{place}.conv": f"up_blocks.{level}.upsamplers.0.conv"}
    return {name: module for rows in (*layers, up) for name, module in rows.items()}


def _layer(resnet: str | None, attention: str | None, block: str, layer: int) -> dict[str, str]:
    """Returns the names of a residual block and an attention block; None omits the block."""
    rows: Iterator[tuple[str, str]] = iter(())
    if resnet:
        rows = ((f"{resnet}.{leaf}", f"{block}.resnets.{layer}.{name}") for leaf, name in _RESNET.items())
    found = dict(rows)
    return found | ({f"{attention}.{leaf}": f"{block}.attentions.{layer}.{leaf}" for leaf in TRANSFORMER} if attention else {})
