"""Module paths: the canonical spelling of every module that a LoRA may change, and the grammar behind it.

A canonical path is the part of the pipeline followed by the module's diffusers name, for instance
``unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q``. The text encoder's paths keep the inner ``text_model.`` of the
published files (``text_encoder.text_model.encoder.layers.0.self_attn.q_proj``), although transformers 5 dropped that level from
``CLIPTextModel``'s own modules: files outlive library versions. ``live_modules`` maps the one to the other.

Kohya's files replace every dot by an underscore. Module names hold underscores themselves, so the way back is not a replacement
but a grammar: the flattened name is matched against every known path. The U-Net's names in Stability's own code are another spelling
of the same paths.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product

from optimizer.adapters.sgm import diffusers_name

_INDEX = r"(0|[1-9]\d{0,2})"
_INNER = "text_model."

_ATTENTION = tuple(f"{attention}.{leaf}" for attention, leaf in product(("attn1", "attn2"), ("to_q", "to_k", "to_v", "to_out.0")))
_TRANSFORMER = ("proj_in", "proj_out", *(f"transformer_blocks.#.{leaf}" for leaf in (*_ATTENTION, "ff.net.0.proj", "ff.net.2")))
_RESNET = ("conv1", "conv2", "conv_shortcut", "time_emb_proj")
_BLOCK = (
    *(f"attentions.#.{leaf}" for leaf in _TRANSFORMER),
    *(f"resnets.#.{leaf}" for leaf in _RESNET),
    "downsamplers.#.conv",
    "upsamplers.#.conv",
)
_UNET = (
    "conv_in",
    "conv_out",
    *(f"{embedding}.{leaf}" for embedding, leaf in product(("time_embedding", "add_embedding"), ("linear_1", "linear_2"))),
    *(f"{block}.{leaf}" for block, leaf in product(("down_blocks.#", "mid_block", "up_blocks.#"), _BLOCK)),
)
_CLIP_LEAVES = (*(f"self_attn.{leaf}_proj" for leaf in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")
_CLIP = (*(f"{_INNER}encoder.layers.#.{leaf}" for leaf in _CLIP_LEAVES), "text_projection")

TEMPLATES: dict[str, tuple[str, ...]] = {"unet": _UNET, "text_encoder": _CLIP, "text_encoder_2": _CLIP}
"""Part of the pipeline → its module paths, with ``#`` for an index."""

_CONV_3X3 = ("conv1", "conv2", "conv", "conv_in", "conv_out")


@dataclass(frozen=True)
class _Rule:
    template: str
    dotted: re.Pattern[str]
    flat: re.Pattern[str]


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\#", _INDEX), re.ASCII)


def _rule(template: str) -> _Rule:
    # In a file, the inner level is optional: tools that walk transformers 5's own module names leave it out.
    short = template.removeprefix(_INNER)
    return _Rule(template, _pattern(short), _pattern(short.replace(".", "_")))


_RULES = {part: tuple(_rule(template) for template in templates) for part, templates in TEMPLATES.items()}


def from_dotted(part: str, name: str) -> str | None:
    """The canonical path of a dotted module name inside a part, in diffusers' or sgm's spelling, or None when the grammar does not
    hold it."""
    known = _respelt(part, name).removeprefix(_INNER)
    return next((f"{part}.{_prefix(rule)}{known}" for rule in _RULES[part] if rule.dotted.fullmatch(known)), None)


def from_flat(part: str, name: str) -> str | None:
    """The canonical path of a name whose dots were replaced by underscores, in diffusers' or sgm's spelling, or None.

    Example:
        >>> from_flat("unet", "mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0")
        'unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0'
    """
    short = _respelt(part, name).removeprefix(_INNER.replace(".", "_"))
    for rule in _RULES[part]:
        if found := rule.flat.fullmatch(short):
            return f"{part}.{_filled(rule.template, found.groups())}"
    return None


def _respelt(part: str, name: str) -> str:
    return (diffusers_name(name) if part == "unet" else None) or name


def split_path(path: str) -> tuple[str, str]:
    """A canonical path as (part, module name inside the part); a path of an unknown part is a ValueError."""
    part, _, name = path.partition(".")
    if part not in TEMPLATES or from_dotted(part, name) != path:
        raise ValueError(f"{path!r} is not a canonical module path; parts are {', '.join(TEMPLATES)}")
    return part, name


def kernel_size(path: str) -> tuple[int, ...]:
    """Kernel of the module's weight as far as its name tells: (3, 3), (1, 1), or () for a linear layer.

    ``proj_in`` and ``proj_out`` are 1 × 1 convolutions in SD 1.5 and linear layers from SD 2 on; they count as linear here.
    """
    leaf = path.rpartition(".")[2]
    if leaf in _CONV_3X3:
        return (3, 3)
    return (1, 1) if leaf == "conv_shortcut" else ()


def nearest_pattern(name: str, prefixes: dict[str, str]) -> str:
    """The known tensor-name pattern that is most like an unknown name, with ``#`` for an index.

    Args:
        name: what the file says, without the suffix that tells the tensor's role.
        prefixes: file prefix → part; a prefix that ends in ``_`` marks flattened names.
    """
    known = [
        prefix + (template.replace(".", "_") if prefix.endswith("_") else template)
        for prefix, part in prefixes.items()
        for template in TEMPLATES[part]
    ]
    return get_close_matches(re.sub(r"(?<=[._])\d+(?=[._])", "#", name[:200]), known, n=1, cutoff=0.0)[0]


def _filled(template: str, indices: Sequence[str]) -> str:
    pieces = template.split("#")
    return "".join(piece + index for piece, index in zip(pieces, [*indices, ""], strict=True))


def _prefix(rule: _Rule) -> str:
    return _INNER if rule.template.startswith(_INNER) else ""
