"""Named blocks: the part of the network that a module belongs to.

The names of a U-Net's blocks are those of A1111's block weights: ``IN00`` … ``MID`` … ``OUT11`` follow the order of the original U-Net,
where every layer and every resampler is a separate block. A transformer's blocks are numbered by kind (``DOUBLE_00``, ``SINGLE_00``).
Block weights refer to names, not positions, so their meaning does not depend on the modules that a file contains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from optimizer.adapters.families import FAMILIES, Family, Run
from optimizer.errors import RecipeError

Rule = tuple[re.Pattern[str], Callable[[int, int], str]]
"""Pattern on the canonical path with up to two integer groups, and a function from these integers to the block's name."""


@dataclass(frozen=True)
class BlockMap:
    """Blocks of one architecture.

    Attributes:
        names: all block names, in the order of execution.
        rules: rules tried in order; a path that matches none belongs to ``BASE``.
        groups: groups that a search weighs separately: label → blocks or families of blocks, in the order in which they are split off.
    """

    names: tuple[str, ...]
    rules: tuple[Rule, ...]
    groups: Mapping[str, tuple[str, ...]]

    @property
    def families(self) -> tuple[str, ...]:
        """Distinct block names without their numbers."""
        return tuple(dict.fromkeys(family_of(name) for name in self.names))

    def block_of(self, path: str) -> str:
        """Returns the block of a canonical module path."""
        for pattern, name in self.rules:
            if match := pattern.match(path):
                first, second = (*(int(g) for g in match.groups()), 0, 0)[:2]
                return name(first, second)
        return "BASE"

    def group_of(self, path: str) -> str | None:
        """Returns the label of the group that a canonical module path belongs to, or None."""
        block = self.block_of(path)
        return next((label for label, names in self.groups.items() if block in names or family_of(block) in names), None)

    def position(self, label: str) -> int:
        """Returns the position of a group's first block in the network, as an index into ``names``."""
        first = self.groups[label][0]
        return next(i for i, name in enumerate(self.names) if first in (name, family_of(name)))


def family_of(name: str) -> str:
    """Returns a block's family: ``IN04`` → ``IN``, ``TE2`` → ``TE``, ``MID`` → ``MID``."""
    return name.rstrip("0123456789").rstrip("_")


def _rule(pattern: str, name: Callable[[int, int], str]) -> Rule:
    return re.compile(pattern.replace(".", r"\.").replace("#", r"(\d+)") + r"(?:\.|$)"), name


def _numbered(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{i:02d}" for i in range(count))


def _always(name: str) -> Callable[[int, int], str]:
    return lambda i, j: name


def _counted(prefix: str) -> Callable[[int, int], str]:
    return lambda i, j: f"{prefix}{i:02d}"


_TEXT_RULES = (
    _rule("text_encoder", _always("TE")),
    _rule("text_encoder_2", _always("TE2")),
)

# Two layers per level in the down blocks and three in the up blocks; each level ends with a resampler.
_UNET_RULES = (
    *_TEXT_RULES,
    _rule("unet.conv_in", lambda i, j: "IN00"),
    _rule("unet.down_blocks.#.(?:resnets|attentions).#", lambda i, j: f"IN{3 * i + j + 1:02d}"),
    _rule("unet.down_blocks.#.downsamplers", lambda i, j: f"IN{3 * i + 3:02d}"),
    _rule("unet.mid_block", lambda i, j: "MID"),
    _rule("unet.up_blocks.#.(?:resnets|attentions).#", lambda i, j: f"OUT{3 * i + j:02d}"),
    _rule("unet.up_blocks.#.upsamplers", lambda i, j: f"OUT{3 * i + 2:02d}"),
)

# Order of splitting: the output half (style) from the input half (composition), then the text encoders, then the middle.
_UNET_GROUPS = {name: (name,) for name in ("OUT", "IN", "TE", "MID")}


def _texts(family: Family) -> dict[str, str]:
    """Returns text encoder → its block: ``TE``, ``TE2``, …."""
    return {encoder.part: "TE" + encoder.part.removeprefix("text_encoder").removeprefix("_") for encoder in family.text_encoders}


def _unet(family: Family) -> BlockMap:
    """Returns the block map of a U-Net: text encoders, three blocks per level on the way in, the middle, three on the way out."""
    count = 3 * family.levels
    names = ("BASE", *_texts(family).values(), *_numbered("IN", count), "MID", *_numbered("OUT", count))
    return BlockMap(names, _UNET_RULES, _UNET_GROUPS)


def _transformer(family: Family) -> BlockMap:
    """Returns the block map of a transformer: text encoders, then each sequence of numbered blocks."""
    texts = _texts(family)
    names = ("BASE", *texts.values(), *(name for run in family.runs for name in _numbered(run.name, run.count)))
    parts = [_rule(part, _always(name)) for part, name in texts.items()]
    rules = (*parts, *(_rule(f"{family.denoiser}.{run.modules}", _counted(run.name)) for run in family.runs))
    return BlockMap(names, rules, _halves(family.runs) | ({"TE": ("TE",)} if texts else {}))


def _halves(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    """Returns both halves of every sequence of blocks, later halves and later sequences first."""
    late, early = {}, {}
    for run in reversed(runs):
        names, half = _numbered(run.name, run.count), (run.count + 1) // 2
        late[f"{names[half]}-{run.count - 1:02d}"] = names[half:]
        early[f"{names[0]}-{half - 1:02d}"] = names[:half]
    return late | early


BLOCK_MAPS: dict[str, BlockMap] = {
    family.name: _unet(family) if family.levels else _transformer(family) for family in FAMILIES.values() if family.levels or family.runs
}
"""Block map of each base model family, by family name."""


def block_map(base: str) -> BlockMap:
    """Returns the block map of a base; that of SD 1.x for ``unknown``.

    Raises:
        RecipeError: no block map is defined for this base.
    """
    found = BLOCK_MAPS.get("sd1" if base == "unknown" else base)
    if found is None:
        raise RecipeError(
            f"no named blocks are known for the base {base!r}",
            where="blocks",
            remedy=f"leave the block weights out; bases with named blocks: {', '.join(BLOCK_MAPS)}",
        )
    return found


@lru_cache(maxsize=2**16)
def block_of(path: str, base: str = "unknown") -> str:
    """Returns the block of a canonical path: ``unet.down_blocks.1.attentions.0.….to_q`` → ``IN04``; ``BASE`` outside all blocks."""
    return block_map(base).block_of(path)


def block_weight(path: str, weights: Mapping[str, float], base: str = "unknown") -> float:
    """Returns the block weight of a module: that of its block, else that of the block's family, else 1."""
    if not weights:
        return 1.0
    block = block_of(path, base)
    return weights.get(block, weights.get(family_of(block), 1.0))


def check_block_names(names: Iterable[str], *, where: str, base: str | None = None) -> None:
    """Checks that all names are blocks or families of blocks of ``base``, or of any base if None.

    Raises:
        RecipeError: a name is unknown; lists the valid names.
    """
    maps = BLOCK_MAPS.values() if base is None else [block_map(base)]
    valid = list(dict.fromkeys(name for m in maps for name in (*m.families, *m.names)))
    for name in names:
        if name not in valid:
            of = f" of the base {base!r}" if base else ""
            raise RecipeError(f"unknown block {name!r}{of}", where=where, remedy=f"valid names: {', '.join(valid)}")
