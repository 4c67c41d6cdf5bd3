"""Module paths: the canonical name of every module that a LoRA can change.

A canonical path is the pipeline part followed by the module's diffusers name, for instance
``unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q``. ``live_modules`` maps paths to the modules of a loaded pipeline.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches

from optimizer.adapters.families import FAMILIES, INNER
from optimizer.adapters.names.grammar import Grammar, fill


def _templates() -> dict[str, tuple[str, ...]]:
    found: dict[str, dict[str, None]] = {}
    for family in FAMILIES.values():
        for part, templates in family.parts.items():
            found.setdefault(part, {}).update(dict.fromkeys(templates))
    return {part: tuple(templates) for part, templates in found.items()}


TEMPLATES: dict[str, tuple[str, ...]] = _templates()
"""Pipeline part → module path templates of all families, with ``#`` for an index."""

_CONV_3X3 = ("conv1", "conv2", "conv", "conv_in", "conv_out")


def grammar(templates: Collection[str], separator: str) -> Grammar[str]:
    """Returns the grammar of one part's diffusers names, without the ``text_model.`` level, which keys may lack."""
    return Grammar({template.removeprefix(INNER): template for template in templates}, separator)


_GRAMMARS = {part: grammar(templates, ".") for part, templates in TEMPLATES.items()}


def from_dotted(part: str, name: str) -> str | None:
    """Returns the canonical path of a module of a part, or None if no family has a module of this name."""
    found = _GRAMMARS[part].find(name.removeprefix(INNER))
    return f"{part}.{fill(*found)}" if found else None


def split_path(path: str) -> tuple[str, str]:
    """Splits a canonical path into (part, module name inside the part).

    Raises:
        ValueError: the path is not canonical, or its part is unknown.
    """
    part, _, name = path.partition(".")
    if part not in TEMPLATES or from_dotted(part, name) != path:
        raise ValueError(f"{path!r} is not a canonical module path; parts are {', '.join(TEMPLATES)}")
    return part, name


def kernel_size(path: str) -> tuple[int, ...]:
    """Returns the kernel size implied by the module's name: (3, 3), (1, 1), or () for a linear layer.

    ``proj_in`` and ``proj_out`` are 1 × 1 convolutions in SD 1.5 and linear layers from SD 2 on; they count as linear here.
    """
    leaf = path.rpartition(".")[2]
    if leaf in _CONV_3X3:
        return (3, 3)
    return (1, 1) if leaf == "conv_shortcut" else ()


def nearest_pattern(name: str, prefixes: Mapping[str, Collection[str]]) -> str:
    """Returns the known key pattern most similar to an unknown key, with ``#`` for an index.

    Args:
        name: key of the file, without the tensor's suffix.
        prefixes: key prefix → templates that can follow it; a prefix that ends in ``_`` marks flattened names.
    """
    known = [
        prefix + (template.replace(".", "_") if prefix.endswith("_") else template)
        for prefix, templates in prefixes.items()
        for template in templates
    ]
    return get_close_matches(re.sub(r"(?<=[._])\d+(?=[._])", "#", name[:200]), known, n=1, cutoff=0.0)[0]
