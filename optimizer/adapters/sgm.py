"""The U-Net's names in Stability's own code (``sgm``, before it ``ldm``), and diffusers' names for the same modules.

sd-scripts trains Stable Diffusion XL under the former, ComfyUI writes them for every U-Net. There, the blocks of all levels are
numbered through: two residual blocks and a downsampling a level on the way in, three residual blocks on the way out, the last one
of which also upsamples. The correspondence is that of diffusers' ``convert_ldm_unet_checkpoint``.
"""

from __future__ import annotations

import re

_SINGLE = {
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}
_RESNET = {"in_layers.2": "conv1", "out_layers.3": "conv2", "emb_layers.1": "time_emb_proj", "skip_connection": "conv_shortcut"}
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
_LEVEL = 3  # entries of a level, on either way

_INPUT = re.compile(r"input_blocks([._])([1-9]\d?)\1([01])\1(.+)", re.ASCII)
_OUTPUT = re.compile(r"output_blocks([._])(0|[1-9]\d?)\1([012])\1(.+)", re.ASCII)
_MIDDLE_BLOCK = re.compile(r"middle_block([._])([012])\1(.+)", re.ASCII)
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", re.ASCII)

_FLAT_SINGLE, _FLAT_RESNET = ({old.replace(".", "_"): new for old, new in table.items()} for table in (_SINGLE, _RESNET))
_FROM_SINGLE, _FROM_RESNET, _FROM_MIDDLE = ({new: old for old, new in table.items()} for table in (_SINGLE, _RESNET, _MIDDLE))


def diffusers_name(name: str) -> str | None:
    """The diffusers name of a module that ``sgm`` calls ``name``; None where it does not spell names so.

    Args:
        name: inside the U-Net, with dots or, as kohya's files have it, with underscores in their place; the result has the same.

    Example:
        >>> diffusers_name("input_blocks_4_1_proj_in")
        'down_blocks_1_attentions_0_proj_in'
    """
    found = _FLAT_SINGLE.get(name.replace(".", "_")) or _input(name) or _output(name) or _middle(name)
    return found if found is None or "." in name else found.replace(".", "_")


def _input(name: str) -> str | None:
    found = _INPUT.fullmatch(name)
    if found is None:
        return None
    level, layer = divmod(int(found[2]) - 1, _LEVEL)
    if layer < _LEVEL - 1:
        return _layer(f"down_blocks.{level}", layer, found[3], found[4])
    return f"down_blocks.{level}.downsamplers.0.conv" if (found[3], found[4]) == ("0", "op") else None


def _output(name: str) -> str | None:
    found = _OUTPUT.fullmatch(name)
    if found is None:
        return None
    level, layer = divmod(int(found[2]), _LEVEL)
    if found[4] != "conv":
        return _layer(f"up_blocks.{level}", layer, found[3], found[4])
    # after the attention, in a level that has one
    return f"up_blocks.{level}.upsamplers.0.conv" if layer == _LEVEL - 1 and found[3] != "0" else None


def _middle(name: str) -> str | None:
    found = _MIDDLE_BLOCK.fullmatch(name)
    if found is None:
        return None
    kind, _, layer = _FROM_MIDDLE[found[2]].partition(".")
    return _layer("mid_block", int(layer), "1" if kind == "attentions" else "0", found[3])


def _layer(block: str, layer: int, place: str, leaf: str) -> str | None:
    """A residual block (place 0) or an attention (place 1) of a block."""
    if place == "0":
        known = _FLAT_RESNET.get(leaf.replace(".", "_"))
        return f"{block}.resnets.{layer}.{known}" if known else None
    return f"{block}.attentions.{layer}.{leaf}" if place == "1" else None


def sgm_name(name: str) -> str | None:
    """The name that ``sgm`` has for a module that diffusers calls ``name``, both dotted, in a U-Net of Stable Diffusion XL's kind, whose
    upsampling levels have attention; None for a module that it does not know."""
    if name in _FROM_SINGLE:
        return _FROM_SINGLE[name]
    if found := _BLOCK.fullmatch(name):
        way, level, kind, layer, leaf = found[1], int(found[2]), found[3], int(found[4]), found[5]
        if kind == "downsamplers":
            return f"input_blocks.{_LEVEL * (level + 1)}.0.op"
        if kind == "upsamplers":
            return f"output_blocks.{_LEVEL * level + _LEVEL - 1}.2.conv"
        block = f"input_blocks.{_LEVEL * level + layer + 1}" if way == "down" else f"output_blocks.{_LEVEL * level + layer}"
        return f"{block}.0.{_FROM_RESNET[leaf]}" if kind == "resnets" else f"{block}.1.{leaf}"
    parts = name.split(".", 3)
    if parts[0] == "mid_block" and len(parts) == 4 and (place := _MIDDLE.get(".".join(parts[1:3]))):
        return f"middle_block.{place}.{parts[3] if place == '1' else _FROM_RESNET[parts[3]]}"
    return None
