"""Block weights as people type them."""

from __future__ import annotations

import re

from optimizer.errors import RecipeError
from optimizer.merging.blocks.lists import TOOLS, number, read_list
from optimizer.merging.blocks.maps import block_map, check_block_names
from optimizer.merging.blocks.presets import LBW_PRESETS, preset


def read_blocks(text: str, base: str, *, where: str = "blocks") -> dict[str, float]:
    """Named block weights from what a user typed.

    - Blocks and families of blocks by name: ``IN04=0.5, OUT=1.2, TE=0`` or ``IN04:0.5``. What is not named keeps 1.
    - A preset: ``STYLE``, ``outs``; see ``optimizer.merging.blocks.presets``.
    - A list: ``1,0,0,…`` or ``[1, 0, 0, …]``; see ``optimizer.merging.blocks.lists`` for what its entries mean. Without a prefix it is
      read as sd-webui-lora-block-weight does, at lengths which only ComfyUI-Inspire-Pack knows (21, 27, 58) as that one does.
    - With a prefix, the list of that tool: ``lbw:1,0,…``, ``kohya:[1,0,…]``, ``inspire:1,0,…``; ``lbw:INS`` is that tool's own preset.

    Args:
        text: one of these.
        base: family of the base model, ``sd1`` …; ``unknown`` counts as ``sd1``.
        where: what to name in errors.

    Returns:
        block or family of blocks → factor, as ``Recipe.blocks`` takes it for one source. Lists name every block that the tool weighs.

    Raises:
        RecipeError: what cannot be read, or does not go with the base.

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
    """Whether the text is a list of numbers, or of letters that stand for numbers in one."""
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
