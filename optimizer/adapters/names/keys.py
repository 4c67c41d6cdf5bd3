"""Tensor names: which module of the pipeline a tensor of a file belongs to.

The dialects (where their names come from):

    kohya       ``lora_unet_down_blocks_0_….lora_up.weight``, ``lora_te_…`` (sd-scripts; also ``lora_te1_`` to ``lora_te3_``)
    OneTrainer  the same with diffusers' names, for transformers after ``lora_transformer_``
    LyCORIS     kohya's prefixes or ``lycoris_``; ``.hada_w1_a`` … for LoHa, ``.lokr_w1`` … for LoKr
    diffusers   ``unet.….lora_A.weight``, ``transformer.….lora_B.weight``; older: ``.lora.up.weight``,
                ``.processor.to_q_lora.up.weight``, ``.lora_linear_layer.up.weight``
    PEFT        ``base_model.model.….lora_A.weight``, with or without the part's name
    ComfyUI     ``diffusion_model.….lora_up.weight``, ``text_encoders.clip_l.transformer.…``: the names of its own models
    original    the names of the model's original code without a prefix (FLUX.1's control adapters)
    XLabs       ``double_blocks.0.processor.qkv_lora1.up.weight``
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from optimizer.adapters.families import FAMILIES, Family
from optimizer.adapters.names.paths import TEMPLATES, nearest_pattern
from optimizer.adapters.names.targets import Place, place
from optimizer.adapters.names.tensor_suffixes import Suffix, read_suffix

_DENOISER = "denoiser"
_LYCORIS, _PEFT = "lycoris_", "base_model.model."


@dataclass(frozen=True)
class _Prefix:
    """What the beginning of a name says: the part (of a family that has no other use for the prefix), the spelling, and whose it is."""

    part: str
    separator: str
    dialect: str


_PREFIXES: dict[str, _Prefix] = {
    "lora_unet_": _Prefix(_DENOISER, "_", "kohya"),
    "lora_transformer_": _Prefix("transformer", "_", "OneTrainer"),
    "lora_te_": _Prefix("text_encoder", "_", "kohya"),
    "lora_te1_": _Prefix("text_encoder", "_", "kohya"),
    "lora_te2_": _Prefix("text_encoder_2", "_", "kohya"),
    "lora_te3_": _Prefix("text_encoder_3", "_", "kohya"),
    **{f"{part}.": _Prefix(part, ".", "diffusers") for part in TEMPLATES},
    "diffusion_model.": _Prefix(_DENOISER, ".", "ComfyUI"),
    "text_encoders.clip_l.transformer.": _Prefix("text_encoder", ".", "ComfyUI"),
    "text_encoders.clip_h.transformer.": _Prefix("text_encoder", ".", "ComfyUI"),
    "text_encoders.clip_g.transformer.": _Prefix("text_encoder_2", ".", "ComfyUI"),
    "text_encoders.t5xxl.transformer.": _Prefix("text_encoder_3", ".", "ComfyUI"),
}


def place_of(stem: str, family: Family) -> Place | None:
    """Where the module that a file calls ``stem`` stands in a family of base models.

    Example:
        >>> place_of("lora_unet_double_blocks_0_img_attn_proj", FAMILIES["flux1"]).paths
        ('transformer.transformer_blocks.0.attn.to_out.0',)
    """
    if found := _prefix(stem):
        text, prefix = found
        return _place(family, _part(text, prefix, family), stem.removeprefix(text), prefix.separator)
    if stem.startswith(_LYCORIS):
        return _lycoris(stem.removeprefix(_LYCORIS), family)
    bare = stem.removeprefix(_PEFT)
    if bare != stem and (found := _prefix(bare)):
        return place_of(bare, family)
    return next((where for part in family.parts if (where := _place(family, part, bare, "."))), None)


def dialect_of(stem: str, where: Place) -> str:
    """Whose spelling a module's name is."""
    if found := _prefix(stem):
        return found[1].dialect
    if stem.startswith((_LYCORIS, _PEFT)):
        return "LyCORIS" if stem.startswith(_LYCORIS) else "PEFT"
    if where.name.startswith(("double_blocks", "single_blocks")) and ".processor." in stem:
        return "XLabs"
    return "diffusers" if where.paths == (f"{where.part}.{where.name}",) else "original"


def suggestion(name: str) -> str:
    """The known module pattern that is most like an unknown tensor name; slow, for messages."""
    suffix = read_suffix(name)
    stem = (suffix.stem if isinstance(suffix, Suffix) else name).removeprefix(_PEFT).removeprefix(_LYCORIS)
    flat = "." not in stem
    known = {text: _templates(prefix.part) for text, prefix in _PREFIXES.items() if (prefix.separator == "_") == flat}
    return nearest_pattern(stem, known)


def is_peft(name: str) -> bool:
    """Whether PEFT itself wrote this name, so that the file's alpha stands in adapter_config.json beside it."""
    return name.startswith(_PEFT)


def _templates(part: str) -> tuple[str, ...]:
    if part != _DENOISER:
        return TEMPLATES[part]
    return tuple(name for family in FAMILIES.values() for name in (*family.modules, *family.native))


def _prefix(stem: str) -> tuple[str, _Prefix] | None:
    return next(((text, prefix) for text, prefix in _PREFIXES.items() if stem.startswith(text)), None)


def _part(text: str, prefix: _Prefix, family: Family) -> str:
    """The part that the prefix stands for in the family; numbers of text encoders differ (FLUX.1's T5 is ``te3`` and second)."""
    if prefix.part == _DENOISER:
        return family.denoiser
    return next((encoder.part for encoder in family.text_encoders if text in (encoder.kohya, encoder.comfyui)), prefix.part)


def _lycoris(name: str, family: Family) -> Place | None:
    """LyCORIS names a module by its place in whatever was wrapped: the pipeline or one of its parts."""
    named = (_place(family, part, name.removeprefix(f"{part}_"), "_") for part in family.parts if name.startswith(f"{part}_"))
    bare = (_place(family, part, name, "_") for part in family.parts)
    return next((where for where in (*named, *bare) if where), None)


def _place(family: Family, part: str, name: str, separator: str) -> Place | None:
    return next((where for spelling in _spellings(part, name) if (where := place(family, part, spelling, separator))), None)


def _spellings(part: str, name: str) -> Iterator[str]:
    """The name, and without the spelling of diffusers' attention processors: ``attn1.processor.to_out`` is ``attn1.to_out.0``."""
    yield name
    plain = name.replace(".processor.", ".")
    if plain.endswith(".to_out"):
        plain += ".0"
    if part not in ("unet", "transformer"):
        plain = re.sub(r"\.self_attn\.to_(q|k|v|out)(\.0)?$", r".self_attn.\1_proj", plain)
    if plain != name:
        yield plain
