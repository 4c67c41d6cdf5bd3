"""Keys: map the keys of a file to modules of the pipeline.

The dialects:

    kohya       ``lora_unet_down_blocks_0_….lora_up.weight``, ``lora_te_…`` (sd-scripts; also ``lora_te1_`` to ``lora_te3_``)
    OneTrainer  kohya's prefixes with diffusers' names; transformers have the prefix ``lora_transformer_``
    LyCORIS     kohya's prefixes or ``lycoris_``; ``.hada_w1_a`` … for LoHa, ``.lokr_w1`` … for LoKr
    diffusers   ``unet.….lora_A.weight``, ``transformer.….lora_B.weight``; older: ``.lora.up.weight``,
                ``.processor.to_q_lora.up.weight``, ``.lora_linear_layer.up.weight``
    PEFT        ``base_model.model.….lora_A.weight``, with or without the part's name
    ComfyUI     ``diffusion_model.….lora_up.weight``, ``text_encoders.clip_l.transformer.…``: module names of ComfyUI's models
    original    module names of the model's original code without a prefix (FLUX.1's control adapters)
    XLabs       ``double_blocks.0.processor.qkv_lora1.up.weight``
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from optimizer.adapters.families import FAMILIES, Family
from optimizer.adapters.names.paths import TEMPLATES, nearest_pattern
from optimizer.adapters.names.targets import Target, find_target
from optimizer.adapters.names.tensor_suffixes import Key, split_key

_DENOISER = "denoiser"
_LYCORIS, _PEFT = "lycoris_", "base_model.model."


@dataclass(frozen=True)
class _Prefix:
    """Meaning of a key prefix: default part (unless the family assigns the prefix to another part), separator and dialect."""

    part: str
    separator: str
    dialect: str


# Reversed, so that the first family with a prefix sets its default part.
_ENCODERS = [encoder for family in reversed(FAMILIES.values()) for encoder in family.text_encoders]
_PREFIXES: dict[str, _Prefix] = {
    "lora_unet_": _Prefix(_DENOISER, "_", "kohya"),
    "lora_transformer_": _Prefix("transformer", "_", "OneTrainer"),
    **{encoder.kohya: _Prefix(encoder.part, "_", "kohya") for encoder in _ENCODERS},
    **{f"{part}.": _Prefix(part, ".", "diffusers") for part in TEMPLATES},
    "diffusion_model.": _Prefix(_DENOISER, ".", "ComfyUI"),
    **{encoder.comfyui: _Prefix(encoder.part, ".", "ComfyUI") for encoder in _ENCODERS},
}


def target_of(stem: str, family: Family) -> Target | None:
    """Returns the target of a module name of a file in a base model family; None if the family has no such module.

    Example:
        >>> target_of("lora_unet_double_blocks_0_img_attn_proj", FAMILIES["flux1"]).paths
        ('transformer.transformer_blocks.0.attn.to_out.0',)
    """
    if found := _prefix(stem):
        text, prefix = found
        return _target(family, _part(text, prefix, family), stem.removeprefix(text), prefix.separator)
    if stem.startswith(_LYCORIS):
        return _lycoris(stem.removeprefix(_LYCORIS), family)
    bare = stem.removeprefix(_PEFT)
    if bare != stem and (found := _prefix(bare)):
        return target_of(bare, family)
    return next((target for part in family.parts if (target := _target(family, part, bare, "."))), None)


def dialect_of(stem: str, target: Target) -> str:
    """Returns the name of the dialect that a module name is written in."""
    if found := _prefix(stem):
        return found[1].dialect
    if stem.startswith((_LYCORIS, _PEFT)):
        return "LyCORIS" if stem.startswith(_LYCORIS) else "PEFT"
    if target.name.startswith(("double_blocks", "single_blocks")) and ".processor." in stem:
        return "XLabs"
    return "diffusers" if target.paths == (f"{target.part}.{target.name}",) else "original"


def suggestion(name: str) -> str:
    """Returns the known module pattern most similar to an unknown key; slow, for error messages only."""
    key = split_key(name)
    stem = (key.stem if isinstance(key, Key) else name).removeprefix(_PEFT).removeprefix(_LYCORIS)
    flat = "." not in stem
    known = {text: _templates(prefix.part) for text, prefix in _PREFIXES.items() if (prefix.separator == "_") == flat}
    return nearest_pattern(stem, known)


def is_peft(name: str) -> bool:
    """Returns whether PEFT wrote this key, in which case adapter_config.json in the file's folder holds alpha."""
    return name.startswith(_PEFT)


def _templates(part: str) -> tuple[str, ...]:
    if part != _DENOISER:
        return TEMPLATES[part]
    return tuple(name for family in FAMILIES.values() for name in (*family.modules, *family.native))


def _prefix(stem: str) -> tuple[str, _Prefix] | None:
    return next(((text, prefix) for text, prefix in _PREFIXES.items() if stem.startswith(text)), None)


def _part(text: str, prefix: _Prefix, family: Family) -> str:
    """Returns the part of the prefix in the family; text encoder numbers differ (FLUX.1's T5 is ``te3`` but ``text_encoder_2``)."""
    if prefix.part == _DENOISER:
        return family.denoiser
    return next((encoder.part for encoder in family.text_encoders if text in (encoder.kohya, encoder.comfyui)), prefix.part)


def _lycoris(name: str, family: Family) -> Target | None:
    """Returns the target of a LyCORIS module name, which is relative to the wrapped object: the pipeline or one of its parts."""
    named = (_target(family, part, name.removeprefix(f"{part}_"), "_") for part in family.parts if name.startswith(f"{part}_"))
    bare = (_target(family, part, name, "_") for part in family.parts)
    return next((target for target in (*named, *bare) if target), None)


def _target(family: Family, part: str, name: str, separator: str) -> Target | None:
    return next((target for spelling in _spellings(part, name) if (target := find_target(family, part, spelling, separator))), None)


def _spellings(part: str, name: str) -> Iterator[str]:
    """Yields the name, and its form without attention processors: ``attn1.to_out.0`` for diffusers' ``attn1.processor.to_out``."""
    yield name
    plain = name.replace(".processor.", ".")
    if plain.endswith(".to_out"):
        plain += ".0"
    if part not in ("unet", "transformer"):
        plain = re.sub(r"\.self_attn\.to_(q|k|v|out)(\.0)?$", r".self_attn.\1_proj", plain)
    if plain != name:
        yield plain
