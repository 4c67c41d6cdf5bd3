"""Diagnosis: interprets the results of ``anatomy`` and ``kinship`` for a merge, in sentences.

A sentence is produced only if a threshold below is passed; every threshold is justified. The diagnosis does not judge whether a single
file is unusually strong: that requires the base weights or a population of files, which are not available here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from optimizer.inspection.similarity import Kinship, Overlap
from optimizer.inspection.strength import Anatomy

STRONGER = 1.25
"""Minimum strength ratio for advice on weights: below it, the advised weights differ from equal weights by less than 0.06."""

INDEPENDENT = 0.05
"""|cosine| below which two changes count as independent: at equal strength, ⟨ΔWₐ + ΔW_b, ΔWₐ⟩ is ‖ΔWₐ‖² to within 5 %."""

OPPOSED = -0.2
"""Cosine at or below which two changes count as opposed: at equal strength, ⟨ΔWₐ + ΔW_b, ΔWₐ⟩ is at most 80 % of ‖ΔWₐ‖²."""

ALIKE = 0.5
"""Minimum cosine of similar changes: at equal strength, the sum projected on either change is at least 1.5 times that change."""

SAME = 0.9999
"""Minimum cosine of identical changes: half precision alters the cosine of a file with itself by far less than 1 − 0.9999."""

MOST = 0.9
"""Minimum energy share that counts as most of the energy: the rest has at most a third of the strength (√(0.1 / 0.9))."""

HALF = 0.5
"""Minimum energy share in one block, or in modules that the other file does not change, for a sentence: at least half."""

SPARE_RANK = 2
"""Minimum ratio of stored rank to sufficient rank (rounded up to a power of two) for advice on a smaller rank."""

ALIGNED = 0.5
"""Minimum chance-corrected overlap of aligned subspaces, (share − chance) / (1 − chance)."""

_NAMED_BLOCKS = 3
_TEXT = "text_encoder"


def diagnose(anatomies: Sequence[Anatomy], kinships: Sequence[Kinship]) -> tuple[str, ...]:
    """Returns one sentence per finding: first for each file, then for each pair, in the given order.

    Args:
        anatomies: anatomy of each file.
        kinships: kinship of each pair of files.
    """
    return tuple(s for a in anatomies for s in about_one(a)) + tuple(s for k in kinships for s in about_two(k))


def about_one(found: Anatomy) -> Iterator[str]:
    """Yields the findings about one file."""
    if found.idle == found.total.modules:
        yield f"{found.name} changes nothing: every ΔW is 0"
        return
    if found.idle:
        yield f"{found.name}: {found.idle} of {found.total.modules} modules change nothing, their ΔW is 0"
    yield from _place(found)
    yield from _spare_rank(found)


def about_two(found: Kinship) -> Iterator[str]:
    """Yields the findings about a pair of files."""
    a, b = found.names
    if obstacle := _obstacle(found):
        yield obstacle
        return
    if found.clashes:
        yield f"{a} and {b}: {_count(len(found.clashes), 'module')} with different shapes cannot be merged"
    if found.same_file:
        yield f"{a} and {b} are the same file"
    elif found.ratio is not None:
        yield from _strength(found)
        yield from _direction(found)
        yield from _spaces(found)
    yield from _beyond(found)


def _place(found: Anatomy) -> Iterator[str]:
    text = sum(share for part, share in found.part_shares.items() if part.startswith(_TEXT))
    where = "the text encoder" if sum(part.startswith(_TEXT) for part in found.parts) == 1 else "the text encoders"
    if all(part.startswith(_TEXT) for part in found.parts):
        yield f"all of {found.name}'s change is in {where}"
    elif text >= MOST:
        yield f"{_percent(text)} of {found.name}'s energy is in {where}"
    else:
        yield from (f"{_percent(b.share)} of {found.name}'s energy is in {b.name}" for b in found.blocks if HALF <= b.share < 1)


def _spare_rank(found: Anatomy) -> Iterator[str]:
    stored, needed = max(found.ranks), found.sufficient_rank
    enough = 1 << (needed - 1).bit_length()
    if stored >= SPARE_RANK * enough:
        up_to = "rank" if len(found.ranks) == 1 else "rank up to"
        yield f"{found.name} has {up_to} {stored}, but 99 % of its energy needs {needed}: rank {enough} would do"


def _obstacle(found: Kinship) -> str:
    a, b = found.names
    if "unknown" not in found.bases and found.bases[0] != found.bases[1]:
        return f"{a} is for {found.bases[0]}, {b} for {found.bases[1]}: they cannot be merged"
    if found.shared:
        return ""
    why = "has the same shape in both" if found.clashes else "is changed by both"
    return f"{a} and {b} cannot be merged: no module {why}"


def _strength(found: Kinship) -> Iterator[str]:
    a, b = found.names
    ratio, weights = found.ratio, found.equal_weights
    if ratio is None or weights is None:
        return
    strong, weak, times = (a, b, ratio) if ratio >= 1 else (b, a, 1 / ratio)
    if times >= STRONGER:
        where = "" if min(found.reach) >= 0.99 else " where both work"
        start = " / ".join(map(_weight, weights))
        yield f"{strong} is {_times(times)} stronger than {weak}{where}: start at weights {start} ({a} / {b})"


def _direction(found: Kinship) -> Iterator[str]:
    a, b = found.names
    cosine, opposed = found.total.cosine, _opposed_blocks(found)
    if cosine >= SAME:
        yield f"{a} and {b} are the same change (cosine {cosine:.4f}), at different strengths if at all"
    elif cosine >= ALIKE:
        yield f"{a} and {b} do much the same (cosine {cosine:.2f}): at full weights they add up, start at weights with sum 1"
    elif abs(cosine) < INDEPENDENT and not opposed:
        yield f"{a} and {b} are independent (cosine ≈ 0): a plain sum keeps both, TIES has nothing to elect"
    elif cosine <= OPPOSED and not opposed:
        yield f"{a} and {b} pull in opposite directions (cosine {_signed(cosine)})"
    if opposed:
        yield f"{a} and {b} pull in opposite directions in {', '.join(opposed)}"


def _opposed_blocks(found: Kinship) -> list[str]:
    worst = sorted((like.cosine, name) for name, like in found.blocks.items() if like.cosine <= OPPOSED)
    named = [f"{name} (cosine {_signed(cosine)})" for cosine, name in worst[:_NAMED_BLOCKS]]
    return [*named, f"{len(worst) - _NAMED_BLOCKS} more"] if len(worst) > _NAMED_BLOCKS else named


def _spaces(found: Kinship) -> Iterator[str]:
    a, b = found.names
    if abs(found.total.cosine) >= ALIKE:  # the subspaces are then aligned as well, which was reported already
        return
    for overlap, does in ((found.total.columns, "write into"), (found.total.rows, "read")):
        if _aligned(overlap):
            yield f"{a} and {b} {does} much the same directions (overlap {overlap.share:.2f}, by chance {overlap.chance:.2f})"


def _aligned(overlap: Overlap) -> bool:
    return overlap.chance < 1 and (overlap.share - overlap.chance) / (1 - overlap.chance) >= ALIGNED


def _beyond(found: Kinship) -> Iterator[str]:
    for name, other, reach in zip(found.names, found.names[::-1], found.reach, strict=True):
        if 1 - reach >= HALF:
            yield f"{_percent(1 - reach)} of {name}'s energy is in modules that {other} does not change"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}×" if ratio < 10 else f"{ratio:.0f}×"


def _weight(weight: float) -> str:
    return f"{weight:.2f}" if weight >= 0.01 else f"{weight:.1g}"


def _signed(number: float) -> str:
    """Returns the number with two decimals and a Unicode minus sign."""
    return f"{number:.2f}".replace("-", "−")
