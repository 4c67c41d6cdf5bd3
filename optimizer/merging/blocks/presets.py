"""Presets: named sets of block weights.

The names are those of sd-webui-lora-block-weight (LBW). There, a preset is a list of 17 weights for the blocks of SD 1.x with attention;
here it is a range of the whole network that agrees with the list on these 17 blocks and also covers the blocks between them. A preset
sets blocks of the U-Net to 0 and leaves everything else at 1: text encoders, as in LBW's presets, and modules outside all blocks.

``STYLE`` and ``CONTENT`` are for two sources, a style and a character; every block of the U-Net is active in exactly one of them.

- SD 1.x and 2.x: style in the output blocks, content in the input blocks and the middle, the common "style out, character in".
- SDXL: B-LoRA (arXiv 2403.14572) finds style in ``up_blocks.0.attentions.1`` and content in ``up_blocks.0.attentions.0``, that is, in
  ``OUT01`` and ``OUT00``. ``STYLE`` is ``OUT01`` only; ``CONTENT`` is all other blocks, so that a character trained in the whole network
  is kept (B-LoRA's content setting would be ``IN=0, MID=0, OUT=0, OUT00=1``).
"""

from __future__ import annotations

from types import MappingProxyType

from optimizer.adapters.families import FAMILIES
from optimizer.errors import RecipeError
from optimizer.merging.blocks.maps import block_map

_EVERYWHERE = {
    "ALL": "everything at 1",
    "ALL0.5": "everything at 0.5",
    "NONE": "everything at 0",
}
_UNET = {
    "INS": "the way in, shallow",
    "IND": "the way in, deep",
    "INALL": "the way in",
    "MIDD": "the middle and what is deep around it",
    "OUTD": "the way out, deep",
    "OUTS": "the way out, shallow",
    "OUTALL": "the way out",
    "STYLE": "what makes the style; for the style of two sources",
    "CONTENT": "all that STYLE leaves; for the character of two sources",
}
BLOCK_PRESETS = MappingProxyType({**_EVERYWHERE, **_UNET})
"""Name and description of every preset, for display."""

_Ranges = tuple[tuple[str, str], ...]
"""Active blocks: from the first to the last block of each pair, in network order."""

_SD: dict[str, _Ranges] = {
    "INS": (("IN00", "IN04"),),
    "IND": (("IN05", "IN11"),),
    "INALL": (("IN00", "IN11"),),
    "MIDD": (("IN05", "OUT06"),),
    "OUTD": (("OUT00", "OUT06"),),
    "OUTS": (("OUT07", "OUT11"),),
    "OUTALL": (("OUT00", "OUT11"),),
    "STYLE": (("OUT00", "OUT11"),),
    "CONTENT": (("IN00", "MID"),),
}
# No other tool defines these for SDXL; "deep" is the lowest resolution, with ten attention layers per block.
_SDXL: dict[str, _Ranges] = {
    "INS": (("IN00", "IN06"),),
    "IND": (("IN07", "IN08"),),
    "INALL": (("IN00", "IN08"),),
    "MIDD": (("IN07", "OUT02"),),
    "OUTD": (("OUT00", "OUT02"),),
    "OUTS": (("OUT03", "OUT08"),),
    "OUTALL": (("OUT00", "OUT08"),),
    "STYLE": (("OUT01", "OUT01"),),
    "CONTENT": (("IN00", "OUT00"), ("OUT02", "OUT08")),
}
_BY_LEVELS = {4: _SD, 3: _SDXL}
_KEPT = {family.name: _BY_LEVELS[family.levels] for family in FAMILIES.values() if family.levels in _BY_LEVELS}
_WHOLE = {"ALL": 1.0, "ALL0.5": 0.5, "NONE": 0.0}

LBW_PRESETS = MappingProxyType(
    {
        "NONE": ",".join("0" * 17),
        "ALL": ",".join("1" * 17),
        "INS": ",".join("11110000000000000"),
        "IND": ",".join("10001110000000000"),
        "INALL": ",".join("11111110000000000"),
        "MIDD": ",".join("10001111111100000"),
        "OUTD": ",".join("10000000111100000"),
        "OUTS": ",".join("10000000000011111"),
        "OUTALL": ",".join("10000000111111111"),
        "ALL0.5": ",".join(["0.5"] * 17),
        "FLUXALL": ",".join("1" * 61),
    }
)
"""Default presets of sd-webui-lora-block-weight (``DEF_WEIGHT_PRESET``), verbatim.

An older ``lbwpresets.txt`` of that repository has 0 for the text encoder in IND, MIDD, OUTD, OUTS and OUTALL.
"""


def block_preset_names(base: str) -> tuple[str, ...]:
    """Returns the names of the presets of a base.

    Transformers have only the uniform presets: they have no input and output blocks, and no established split into style and content.
    """
    return tuple(BLOCK_PRESETS) if _family(base) in _KEPT else tuple(_EVERYWHERE)


def preset(name: str, base: str, *, where: str = "blocks") -> dict[str, float]:
    """Returns the block weights of a preset; blocks with weight 1 are left out.

    Args:
        name: a key of ``BLOCK_PRESETS``, in upper or lower case.
        base: family of the base model.
        where: location named in errors.

    Raises:
        RecipeError: the preset does not exist, or is not defined for this base.
    """
    word, names = name.upper(), block_map(base).names
    if word not in block_preset_names(base):
        what = f"the preset {word!r} is not defined for the base {base!r}" if word in BLOCK_PRESETS else f"unknown preset {name!r}"
        raise RecipeError(
            what,
            where=where,
            remedy=f"presets of this base: {', '.join(block_preset_names(base))}; or name the blocks: {names[-1]}=0.5",
        )
    if word in _WHOLE:
        return {} if _WHOLE[word] == 1 else dict.fromkeys(names, _WHOLE[word])
    kept = {block for first, last in _KEPT[_family(base)][word] for block in names[names.index(first) : names.index(last) + 1]}
    return {block: 0.0 for block in names[names.index("IN00") :] if block not in kept}


def _family(base: str) -> str:
    return "sd1" if base == "unknown" else base
