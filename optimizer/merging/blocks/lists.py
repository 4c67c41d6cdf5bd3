"""Parser for the positional block-weight lists of other tools, into named blocks.

The meaning of an entry depends on the tool, on the base model, and for Inspire even on the file that the list was written for. The
layouts are taken from the tools' source code (LBW at 04b986c, sd-scripts at 077f6a4, Inspire at 25ae8d5 with the presets of f64c987):

- ``lbw``: sd-webui-lora-block-weight (``BLOCKID12`` … ``BLOCKIDFLUX``, ``to26``, ``ratiodealer``, ``get_flux_blocks``). A block that
  a list does not name gets weight **0** there: the 17 entries of SD 1.x are the blocks with attention, so a LyCORIS file loses
  ``IN03`` with any such list. Its ``BASE`` is the text encoders; the U-Net's modules outside all blocks (time embedding, ``conv_out``)
  are not scaled. For FLUX.1, ``IN`` and ``OUT`` are the modules before and after the blocks: both map to ``BASE`` here, so they must
  be equal.
- ``kohya``: ``--lbws`` of sd-scripts (``svd_merge_lora.py``, ``format_lbws``, ``get_lbw_block_index``). It uses the layouts of ``lbw``, but
  a block that a list does not name keeps weight **1**. (The weight is read as a factor on ΔW, as ``svd_merge_lora.py`` applies it;
  ``sdxl_merge_lora.py`` multiplies both factors by it, which squares it. In SDXL, time embeddings share the weight of ``IN00``
  there, and in SD 1.x no weight applies to ``conv_in``; sd-scripts trains none of these.)
- ``inspire``: ComfyUI-Inspire-Pack (``LoraLoaderBlockWeight.load_lbw``, ``lbw-preset.txt``). The entries are assigned in turn to the
  blocks **that the file contains**, in the order in, middle, out, double, single; the first entry applies to everything else, text
  encoders and modules outside all blocks. A layout here is valid for files with exactly its blocks: 17 and 12 for attention only, 27
  and 21 for every block except ``conv_in``, where the middle counts as three. For other files a list has another meaning
  (Inspire#191), which cannot be determined from the list. A list that ends early repeats its last number: with 20 entries for FLUX.1,
  the last one is also the weight of all single blocks (Inspire#165).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optimizer.adapters.families import FAMILIES
from optimizer.errors import RecipeError
from optimizer.merging.blocks.maps import block_map

TOOLS = ("lbw", "kohya", "inspire")
"""Supported tools; as a prefix (``kohya:1,0,…``) the name selects the layout of the list."""

_WORD = re.compile(r"[RU]|([ABX]|X[+-]?[\d.]+)", re.IGNORECASE)
"""Placeholders for a number: R and U for a random one; X, A and B for one given elsewhere."""


@dataclass(frozen=True)
class Layout:
    """Meaning of the entries of one list.

    Attributes:
        tool: tool that uses the layout, one of ``TOOLS``.
        bases: families of base models that the layout applies to.
        entries: blocks that each entry weighs.
        rest: weight of the U-Net's other blocks; None leaves them out.
    """

    tool: str
    bases: tuple[str, ...]
    entries: tuple[tuple[str, ...], ...]
    rest: float | None = None


def number(value: object, what: str, where: str) -> float:
    """Returns ``value`` as a finite number; text is parsed.

    Raises:
        RecipeError: the value is not a finite number; ``what`` names it in the message, as in ``entry 3``.
    """
    found = _number(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    if found is not None and math.isfinite(found):
        return found
    given = repr(value) if isinstance(value, str | bool | float) else f"of type {type(value).__name__}"
    if isinstance(value, str) and (word := _WORD.fullmatch(value.strip())):
        kind = "a number given elsewhere" if word[1] else "a random number"
        raise RecipeError(f"{what} is {given}, {kind}", where=where, remedy="give the number itself, so that the merge can be repeated")
    raise RecipeError(f"{what} is {given}, not a finite number", where=where, remedy="give a number such as 0.5")


def _number(value: float | str) -> float | None:
    try:
        return None if "_" in str(value) else float(value)
    except (ValueError, OverflowError):
        return None


def read_list(entries: Sequence[object], base: str, *, tool: str | None = None, where: str = "blocks") -> dict[str, float]:
    """Returns the named block weights of a positional list.

    Args:
        entries: numbers, or text that parses as numbers.
        base: family of the base model.
        tool: one of ``TOOLS``; None selects LBW's layout for every length that LBW defines for any base, else Inspire's.
        where: location named in errors.

    Raises:
        RecipeError: the base has no list of this length, an entry is not a finite number, or two entries for one block differ.
    """
    layout = _layout(len(entries), base, tool, where)
    weights = {} if layout.rest is None else dict.fromkeys(_of_unet(base), layout.rest)
    origin: dict[str, int] = {}
    for i, (entry, blocks) in enumerate(zip(entries, layout.entries, strict=True), 1):
        weight = number(entry, f"entry {i}", where)
        for block in blocks:
            if block in origin and weights[block] != weight:
                raise RecipeError(
                    f"entries {origin[block]} and {i} are {weights[block]:g} and {weight:g}, but {block} is one block here",
                    where=where,
                    remedy="give them the same number",
                )
            weights[block], origin[block] = weight, i
    return weights


def _of_unet(base: str) -> tuple[str, ...]:
    names = block_map(base).names
    return names[names.index("IN00") :]


def _layout(length: int, base: str, tool: str | None, where: str) -> Layout:
    family = "sd1" if base == "unknown" else base
    reading = tool or ("lbw" if any(layout.tool == "lbw" and len(layout.entries) == length for layout in LAYOUTS) else "inspire")
    for layout in LAYOUTS:
        if layout.tool == reading and family in layout.bases and len(layout.entries) == length:
            return layout
    raise RecipeError(
        f"the base {base!r} has no {f'{tool} ' if tool else ''}list of {length} entries", where=where, remedy=_lengths(family, base)
    )


def _lengths(family: str, base: str) -> str:
    """Returns the remedy text: list lengths that are valid for a base, and an example of named blocks."""
    fitting = {tool: [len(layout.entries) for layout in LAYOUTS if layout.tool == tool and family in layout.bases] for tool in TOOLS}
    known = ", ".join(f"{tool}: {' or '.join(map(str, lengths))}" for tool, lengths in fitting.items() if lengths)
    example = f"{block_map(base).names[-1]}=0.5"
    return f"entries of its lists: {known}; or name the blocks: {example}" if known else f"name the blocks: {example}"


def _run(family: str, *numbers: int) -> list[str]:
    return [f"{family}{i:02d}" for i in numbers]


def _single(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    return tuple((name,) for name in names)


def _unets(levels: int) -> tuple[str, ...]:
    return tuple(family.name for family in FAMILIES.values() if family.levels == levels)


_SD, _XL, _FLUX = _unets(4), _unets(3), ("flux1",)
_TEXTS = {_SD: ("TE",), _XL: ("TE", "TE2"), _FLUX: ("TE", "TE2")}

# The blocks with attention, and all blocks.
_SD_ATTENTION = _single([*_run("IN", 1, 2, 4, 5, 7, 8), "MID", *_run("OUT", *range(3, 12))])
_XL_ATTENTION = _single([*_run("IN", 4, 5, 7, 8), "MID", *_run("OUT", *range(6))])
_SD_ALL = _single([*_run("IN", *range(12)), "MID", *_run("OUT", *range(12))])
_XL_ALL = _single([*_run("IN", *range(9)), "MID", *_run("OUT", *range(9))])
_DOUBLE, _SINGLE = _run("DOUBLE_", *range(19)), _run("SINGLE_", *range(38))

_MIDDLE = _single(["MID", "MID", "MID"])  # a residual block, the attention, a residual block
_SD_SEQUENCE = (*_single(_run("IN", *range(1, 12))), *_MIDDLE, *_single(_run("OUT", *range(12))))
_XL_SEQUENCE = (*_single(_run("IN", *range(1, 9))), *_MIDDLE, *_single(_run("OUT", *range(9))))

LAYOUTS: tuple[Layout, ...] = (
    *(
        Layout(tool, bases, (_TEXTS[bases], *blocks), rest)
        for tool, rest in (("lbw", 0.0), ("kohya", 1.0))
        for bases, blocks in ((_SD, _SD_ATTENTION), (_SD, _SD_ALL), (_XL, _XL_ATTENTION), (_XL, _XL_ALL))
    ),
    Layout("lbw", _FLUX, _single(["TE", "TE2", "BASE", *_DOUBLE, *_SINGLE, "BASE"])),
    *(
        Layout("inspire", bases, (("BASE", *_TEXTS[bases]), *blocks))
        for bases, blocks in (
            (_SD, _SD_ATTENTION),
            (_SD, _SD_SEQUENCE),
            (_XL, _XL_ATTENTION),
            (_XL, _XL_SEQUENCE),
            (_FLUX, (*_single(_DOUBLE[:-1]), (_DOUBLE[-1], *_SINGLE))),
            (_FLUX, _single([*_DOUBLE, *_SINGLE])),
        )
    ),
)
"""All supported layouts; for one tool and one base, their lengths differ."""
