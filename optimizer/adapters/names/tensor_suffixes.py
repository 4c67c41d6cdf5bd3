"""Suffixes: splits the key of a tensor into its module's name and a suffix, which tells what the tensor is in the module's ΔW.

Writers spell some suffixes in several ways; here each has one spelling: ``up`` for ``.lora_up.weight``, ``.lora_B.weight``, ….
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LORA = ("up", "down", "mid")
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
FULL = ("diff",)
WEIGHT = "weight"
"""Suffix of (IA)³'s scale in LyCORIS's files, if the module has ``on_input``; else it may be, for instance, a checkpoint's weight."""

BAKE = "apply it to the base model and extract a plain LoRA from the difference"

_DEFAULT = r"(\.default(_\d+)?)?"  # PEFT's default adapter name
_SPELLINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), suffix)
    for pattern, suffix in (
        (r"\.lora_up\.weight", "up"),
        (r"\.lora_down\.weight", "down"),
        (r"\.lora_mid\.weight", "mid"),
        (rf"\.lora_B{_DEFAULT}(\.weight)?", "up"),
        (rf"\.lora_A{_DEFAULT}(\.weight)?", "down"),
        (r"(\.lora|\.lora_linear_layer|_lora|(?<=_lora[12]))\.up\.weight", "up"),
        (r"(\.lora|\.lora_linear_layer|_lora|(?<=_lora[12]))\.down\.weight", "down"),
        (r"\.alpha", "alpha"),
        *((rf"\.{suffix}{_DEFAULT}", suffix) for suffix in (*LOHA, *LOKR, *FULL)),
        (r"\.dora_scale", "dora_scale"),
        (rf"\.lora_magnitude_vector{_DEFAULT}(\.weight)?", "magnitude"),
        *((rf"\.{suffix}", suffix) for suffix in ("on_input", "oft_blocks", "rescale")),
        *((rf"\.{suffix}{_DEFAULT}(\.weight)?", suffix) for suffix in ("ia3_l", "oft_R", "boft_R", "boft_s")),
        *((rf"\.{suffix}\.weight", suffix) for suffix in ("a1", "a2", "b1", "b2")),
        (r"\.weight", WEIGHT),
    )
)

_REFUSED: tuple[tuple[re.Pattern[str], str, str, bool], ...] = tuple(
    (re.compile(pattern), kind, remedy, optional)
    for pattern, kind, remedy, optional in (
        (r"\.(oft_diag|oft_r|oft_embedding_R)(\..*)?", "an OFT that PEFT no longer writes", BAKE, False),
        (r"\.bm(\.weight)?", "GLoRA with a middle factor", BAKE, False),
        (r"\.(reshape_weight|set_weight)", "a LoRA that replaces or reshapes the base weight", "use a LoRA that only adds to it", False),
        (r"\.(w_norm|b_norm)", "a trained normalisation layer", "train again without train_norm", True),
        (r"\.diff_b", "a change of a bias", "extract the LoRA again without biases", True),
        (rf"\.(lora_B|lora_up){_DEFAULT}\.bias", "a LoRA with bias", "train again without lora_bias", True),
        (r"\.lora_embedding_[AB](\..*)?", "a LoRA on an embedding table", "train again without embedding targets", True),
    )
)
_EMBEDDING = re.compile(r"bundle_emb\..+")
_LONGEST = 48


NO_FACTOR = "no known factor of a LoRA, LoHa or LoKr"


@dataclass(frozen=True)
class Key:
    """A key, split into module name and suffix.

    Attributes:
        stem: module name, as written in the file.
        suffix: ``up``, ``down``, ``mid``, ``alpha``, ``diff``, ``magnitude``, or the name of the factor.
    """

    stem: str
    suffix: str


@dataclass(frozen=True)
class Refusal:
    """A tensor of an adapter kind that cannot be merged.

    Attributes:
        kind: description of the tensor's kind.
        remedy: what the user can do.
        optional: whether the rest of the file can be used without the tensor.
    """

    kind: str
    remedy: str
    optional: bool = False


@dataclass(frozen=True)
class Unknown:
    """A key that no dialect recognises, with the reason."""

    reason: str


def split_key(name: str) -> Key | Refusal | Unknown:
    """Returns a key in two parts, or a refusal, or the reason why the key is unknown.

    Example:
        >>> split_key("lora_unet_mid_block_resnets_0_conv1.lora_up.weight")
        Key(stem='lora_unet_mid_block_resnets_0_conv1', suffix='up')
    """
    for pattern, kind, remedy, optional in _REFUSED:
        if _stem(pattern, name) is not None:
            return Refusal(kind, remedy, optional)
    if _EMBEDDING.fullmatch(name):
        return Refusal("an embedding of the prompt that came with the LoRA", "keep the embedding as a file of its own", optional=True)
    for pattern, suffix in _SPELLINGS:
        stem = _stem(pattern, name)
        if stem is not None:
            return Key(stem, suffix)
    return Unknown(NO_FACTOR)


def _stem(pattern: re.Pattern[str], name: str) -> str | None:
    """Returns the part of the key before the suffix, or None. Only the last characters are searched, which bounds the cost."""
    for start in range(max(1, len(name) - _LONGEST), len(name)):
        if name[start] in "._" and pattern.fullmatch(name, start):
            return name[:start]
    return None
