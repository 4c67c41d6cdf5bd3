"""Parser for block weights given as text."""

from __future__ import annotations

import re

from optimizer.errors import RecipeError
from optimizer.merging.blocks.lists import TOOLS, number, read_list
from optimizer.merging.blocks.maps import block_map, check_block_names
from optimizer.merging.blocks.presets import LBW_PRESETS, preset


def read_blocks(text: str, base: str, *, where: str = "blocks") -> dict[str, float]:
    """Returns the named block weights described by a text.

    The text has one of these forms:

    - Blocks and families of blocks by name: ``IN04=0.5, OUT=1.2, TE=0`` or ``IN04:0.5``. Blocks that are not named keep weight 1.
    - A preset: ``STYLE``, ``outs``, as defined in ``optimizer.merging.blocks.presets``.
    - A list: ``1,0,0,…`` or ``[1, 0, 0, …]``, with the layouts in ``optimizer.merging.blocks.lists``. Without a prefix it has the layout
      of sd-webui-lora-block-weight, or that of ComfyUI-Inspire-Pack at the lengths that only Inspire defines (21, 27, 58).
    - With a prefix, a list of that tool: ``lbw:1,0,…``, ``kohya:[1,0,…]``, ``inspire:1,0,…``; ``lbw:INS`` is that tool's own preset.

    Args:
        text: block weights in one of these forms.
        base: family of the base model, ``sd1`` …; ``unknown`` counts as ``sd1``.
        where: location named in errors.

    Returns:
        Block or family of blocks → factor, in the format of ``Recipe.blocks`` for one source. Lists name every block that the tool weighs.

    Raises:
        RecipeError: the text cannot be parsed, or does not apply to the base.

    Example:
        >>> read_blocks("IN04=0.5, OUT=1.2", "sd1")
        {'IN04': 0.5, 'OUT': 1.2}
    """
    block_map(base)
    prefix, _, behind = text.partition(":")
    if (tool := prefix.strip().lower()) in TOOLS:
        return _of_tool(behind.strip(), base, tool, where)
    text = text.strip()
    if not text:
        raise RecipeError("no block weights given", where=where, remedy="write ALL to leave every block at 1")
    if _is_list(text):
        return read_list(_entries(text), base, where=where)
    if "=" in text or ":" in text:
        return _named(text, base, where)
    return preset(text, base, where=where)


def _of_tool(text: str, base: str, tool: str, where: str) -> dict[str, float]:
    if tool == "lbw" and text.upper() in LBW_PRESETS:
        text = LBW_PRESETS[text.upper()]
    if not _is_list(text):
        words = f", or one of its presets: {', '.join(LBW_PRESETS)}" if tool == "lbw" else ""
        raise RecipeError(f"{text!r} is not a list of {tool}", where=where, remedy=f"give numbers with commas between them{words}")
    return read_list(_entries(text), base, tool=tool, where=where)


def _is_list(text: str) -> bool:
    """Returns whether the text is a list of numbers or of placeholders for numbers."""
    return text[:1] in ("[", "+", "-", ".") or text[:1].isdigit() or ("," in text and "=" not in text and ":" not in text)


def _entries(text: str) -> list[str]:
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    return [entry.strip() for entry in text.split(",")]


def _named(text: str, base: str, where: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, *value = (piece.strip() for piece in re.split("[=:]", part, maxsplit=1))
        if not value:
            raise RecipeError(f"{name!r} gives no number", where=where, remedy="write name=number, with commas between them")
        check_block_names([name], where=where, base=base)
        if name in weights:
            raise RecipeError(f"the block {name} is named twice", where=where, remedy="name it once")
        weights[name] = number(value[0], f"the weight of {name}", where)
    return weights
