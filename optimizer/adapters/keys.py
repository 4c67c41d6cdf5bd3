"""Tensor names: which module a tensor of a file belongs to, and which factor of its change it holds.

The dialects (where their names come from):

    kohya       ``lora_unet_down_blocks_0_….lora_up.weight``, ``lora_te_…`` (sd-scripts; also ``lora_te1_``, ``lora_te2_``)
    LyCORIS     kohya's prefixes or ``lycoris_``; ``.hada_w1_a`` … for LoHa, ``.lokr_w1`` … for LoKr
    diffusers   ``unet.….lora_A.weight``, ``text_encoder.….lora_B.weight``; older: ``.lora.up.weight``,
                ``.processor.to_q_lora.up.weight``, ``.lora_linear_layer.up.weight``
    PEFT        ``base_model.model.….lora_A.weight``, with or without the part's name
    ComfyUI     ``diffusion_model.….lora_up.weight``, ``text_encoders.clip_l.transformer.…``: the names of its own models
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from optimizer.adapters.paths import TEMPLATES, from_dotted, from_flat, nearest_pattern

FLAT_PREFIXES = {"lora_unet_": "unet", "lora_te_": "text_encoder", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2"}
_COMFYUI = {
    "diffusion_model.": "unet",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "text_encoders.clip_h.transformer.": "text_encoder",
}
_DOTTED_PREFIXES = {f"{part}.": part for part in TEMPLATES} | _COMFYUI
_LYCORIS, _PEFT = "lycoris_", "base_model.model."

LORA = ("up", "down", "mid")
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")

_ROLES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), role)
    for pattern, role in (
        (r"\.lora_up\.weight", "up"),
        (r"\.lora_down\.weight", "down"),
        (r"\.lora_mid\.weight", "mid"),
        (r"\.lora_B(\.default(_\d+)?)?(\.weight)?", "up"),
        (r"\.lora_A(\.default(_\d+)?)?(\.weight)?", "down"),
        (r"(\.lora|\.lora_linear_layer|_lora)\.up\.weight", "up"),
        (r"(\.lora|\.lora_linear_layer|_lora)\.down\.weight", "down"),
        (r"\.alpha", "alpha"),
        *((rf"\.{role}", role) for role in (*LOHA, *LOKR)),
    )
)

_BAKE = "apply it to the base model and extract a plain LoRA from the difference"
_REFUSED: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern), kind, remedy)
    for pattern, kind, remedy in (
        (r"\.dora_scale|\.lora_magnitude_vector(\.default)?(\.weight)?", "DoRA, whose change depends on the base weight", _BAKE),
        (r"\.(oft_blocks|oft_diag|oft_R|boft_R|boft_s|rescale)(\..*)?", "OFT or BOFT, which multiplies the base weight", _BAKE),
        (r"\.(on_input|ia3_l)(\..*)?", "(IA)³, which multiplies activations", _BAKE),
        (r"\.(w_norm|b_norm)", "a trained normalisation layer", "train again without train_norm, or remove these tensors"),
        (r"\.diff(_b)?", "a full difference of weights, not a low-rank one", "extract a LoRA from it"),
        (r"\.(a1|a2|b1|b2|bm)(\.weight)?", "GLoRA", _BAKE),
        (r"\.(lora_B|lora_up)(\.default)?\.bias", "a LoRA with bias", "train again without lora_bias"),
        (r"\.lora_embedding_[AB](\..*)?", "a LoRA on an embedding table", "train again without embedding targets"),
        (r"\.(reshape_weight|set_weight)", "a LoRA that replaces or reshapes the base weight", "use a LoRA that only adds to the weights"),
    )
)


@dataclass(frozen=True)
class TensorName:
    """A tensor's name, understood.

    Attributes:
        path: canonical module path.
        role: ``up``, ``down``, ``mid``, ``alpha``, or a LyCORIS factor's own name.
    """

    path: str
    role: str


@dataclass(frozen=True)
class Refusal:
    """A tensor of an adapter kind that cannot be merged: what it is and what the user can do."""

    kind: str
    remedy: str


@dataclass(frozen=True)
class Unknown:
    """A tensor name that no dialect explains, and why."""

    reason: str


def read_name(name: str) -> TensorName | Refusal | Unknown:
    """Which module and role a tensor name stands for.

    Example:
        >>> read_name("lora_unet_mid_block_resnets_0_conv1.lora_up.weight")
        TensorName(path='unet.mid_block.resnets.0.conv1', role='up')
    """
    for pattern, kind, remedy in _REFUSED:
        if _ends(pattern, name) is not None:
            return Refusal(kind, remedy)
    for pattern, role in _ROLES:
        stem = _ends(pattern, name)
        if stem is not None:
            path = _module(stem)
            return TensorName(path, role) if path else Unknown("no known module")
    return Unknown("no known factor of a LoRA, LoHa or LoKr")


def suggestion(name: str) -> str:
    """The known module pattern that is most like an unknown tensor name; slow, for messages."""
    stem = next((stem for pattern, _ in _ROLES if (stem := _ends(pattern, name)) is not None), name)
    return nearest_pattern(stem.removeprefix(_PEFT).removeprefix(_LYCORIS), _DOTTED_PREFIXES if "." in stem else FLAT_PREFIXES)


def is_peft(name: str) -> bool:
    """Whether PEFT itself wrote this name, so that the file's alpha stands in adapter_config.json beside it."""
    return name.startswith(_PEFT)


def flat_name(path: str, prefix: str) -> str:
    """A canonical path with kohya's prefix and underscores in place of dots."""
    return prefix + path.partition(".")[2].replace(".", "_")


def _ends(pattern: re.Pattern[str], name: str) -> str | None:
    """What stands before the suffix, or None; suffixes are short, so a long name costs no more than a short one."""
    for start in range(max(1, len(name) - 48), len(name)):
        if name[start] in "._" and pattern.fullmatch(name, start):
            return name[:start]
    return None


def _module(stem: str) -> str | None:
    for prefix, part in FLAT_PREFIXES.items():
        if stem.startswith(prefix):
            return from_flat(part, stem.removeprefix(prefix))
    if stem.startswith(_LYCORIS):
        return _lycoris_module(stem.removeprefix(_LYCORIS))
    return _dotted_module(stem.removeprefix(_PEFT))


def _lycoris_module(name: str) -> str | None:
    """LyCORIS names a module by its place in whatever was wrapped: the pipeline or one of its parts."""
    parts = [part for part in TEMPLATES if name.startswith(f"{part}_")]
    named = (from_flat(part, name.removeprefix(f"{part}_")) for part in parts)
    bare = (from_flat(part, name) for part in TEMPLATES)
    return next((path for path in (*named, *bare) if path), None)


def _dotted_module(stem: str) -> str | None:
    for prefix, part in _DOTTED_PREFIXES.items():
        if stem.startswith(prefix):
            return from_dotted(part, _without_processor(part, stem.removeprefix(prefix)))
    return next((path for part in TEMPLATES if (path := from_dotted(part, _without_processor(part, stem)))), None)


def _without_processor(part: str, name: str) -> str:
    """Undo the spelling of diffusers' attention processors: ``attn1.processor.to_out`` is ``attn1.to_out.0``."""
    name = name.replace(".processor.", ".")
    if name.endswith(".to_out"):
        name += ".0"
    if part != "unet":
        name = re.sub(r"\.self_attn\.to_(q|k|v|out)(\.0)?$", r".self_attn.\1_proj", name)
    return name
