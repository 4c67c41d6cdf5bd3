"""Facts: what ``inspect`` and ``ls`` print for machines. Keys are stable; the functions' docstrings are their documentation.

Every string that a file could have chosen is one printable line. Numbers are finite; what is not known is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optimizer.adapters import Adapter, distillation
from optimizer.inspection.diagnosis import diagnose
from optimizer.inspection.file_metadata import line, particulars
from optimizer.inspection.gather import Found, Gathered, LeftOut
from optimizer.inspection.similarity import Kinship, Likeness, kinships
from optimizer.inspection.strength import Anatomy, BlockAnatomy, anatomy

MOST_UNKNOWN = 10
"""Unknown tensors that are listed."""


@dataclass(frozen=True)
class Inspection:
    """What ``inspect`` found: files, their anatomies in the same order, the kinships of their pairs (ab, ac, …, bc, …), sentences."""

    gathered: Gathered
    anatomies: tuple[Anatomy, ...]
    kinships: tuple[Kinship, ...]
    diagnosis: tuple[str, ...]


def examine(gathered: Gathered) -> Inspection:
    """Measure every file and every pair of files."""
    adapters = [found.adapter for found in gathered.found]
    anatomies = tuple(anatomy(adapter) for adapter in adapters)
    pairs = kinships(adapters)
    return Inspection(gathered, anatomies, pairs, diagnose(anatomies, pairs))


def inspection_facts(found: Inspection) -> dict[str, Any]:
    """Everything that ``inspect`` tells.

    - ``files``: see ``file_facts``; ``pairs``: see ``pair_facts``, in the order ab, ac, …, bc, …
    - ``diagnosis``: sentences for people
    - ``left_out``: see ``left_out_facts``
    """
    files = zip(found.gathered.found, found.anatomies, strict=True)
    return {
        "files": [file_facts(file, body) for file, body in files],
        "pairs": [pair_facts(pair) for pair in found.kinships],
        "diagnosis": list(found.diagnosis),
        "left_out": left_out_facts(found.gathered.left_out),
    }


def file_facts(file: Found, body: Anatomy) -> dict[str, Any]:
    """One file, with what ``identity_facts`` tells, and

    - ``family_reason``: what told the family; ``sha256``: of the file's bytes
    - ``parts``: part of the pipeline → modules; ``ranks``, ``alphas``, ``scales`` (alpha / rank): value → modules
    - ``idle_modules``: whose ΔW is 0; ``sufficient_rank``: the least that keeps 99 % of the energy, given to all modules
    - ``total``, ``blocks``: see ``block_facts``
    - ``distillation``: which kind the file calls itself (LCM, Turbo, …), or null
    - ``metadata``: trigger, title, output_name, author, licence, tags, words (those of the training captions)
    - ``unknown_tensors``: how many there are; ``unknown``: the first of them → why
    """
    adapter = file.adapter
    return identity_facts(file) | {
        "family_reason": line(adapter.base_reason),
        "sha256": adapter.sha256,
        "parts": dict(body.parts),
        "ranks": _by_value(body.ranks),
        "alphas": _by_value(body.alphas),
        "scales": _by_value(body.scales),
        "idle_modules": body.idle,
        "sufficient_rank": body.sufficient_rank,
        "total": block_facts(body.total),
        "blocks": [block_facts(block) for block in body.blocks],
        "distillation": distillation(file.path.name, adapter.metadata),
        "metadata": asdict(particulars(adapter.metadata, file.trigger)),
        "unknown_tensors": len(adapter.coverage.unknown),
        "unknown": first_unknown(adapter),
    }


def identity_facts(file: Found) -> dict[str, Any]:
    """What tells one file from another: ``name``, ``file``, ``family``, ``dialect``, ``kinds`` (kind → modules), ``bytes``."""
    adapter = file.adapter
    return {
        "name": adapter.name,
        "file": str(file.path),
        "family": adapter.base,
        "dialect": line(adapter.dialect),
        "kinds": dict(adapter.kinds),
        "bytes": file.path.stat().st_size,
    }


def block_facts(block: BlockAnatomy) -> dict[str, Any]:
    """One block: ``name``, ``modules``, ``norm`` ‖ΔW‖, ``energy_share`` of the file's ‖ΔW‖², ``weights`` (mean, std, min, max of the
    stored numbers), and as medians over its modules ``rank``, ``effective_rank``, ``rank_for_90``, ``rank_for_99`` (percent of energy)."""
    values, directions = block.values, block.directions
    return {
        "name": block.name,
        "modules": block.modules,
        "norm": block.norm,
        "energy_share": block.share,
        "weights": {"mean": values.mean, "std": values.std, "min": values.minimum, "max": values.maximum},
        "rank": directions.stored,
        "effective_rank": directions.effective,
        "rank_for_90": directions.for_90,
        "rank_for_99": directions.for_99,
    }


def pair_facts(pair: Kinship) -> dict[str, Any]:
    """Two files; lists of two are in the order of ``names``.

    - ``names``, ``families``; ``shared`` modules; ``only``: modules that one has alone; ``shape_conflicts``: path → both shapes
    - ``shared_energy``: share of each one's energy in the shared modules
    - ``strength_ratio``: ‖ΔWₐ‖ / ‖ΔW_b‖ over these; ``equal_weights``: weights of sum 1 at which both are as strong; null without ΔW
    - ``total``, and ``blocks`` by name: see ``likeness_facts``
    """
    return {
        "names": list(pair.names),
        "families": list(pair.bases),
        "shared": len(pair.shared),
        "only": [len(paths) for paths in pair.only],
        "shape_conflicts": {path: [list(shape) for shape in shapes] for path, shapes in pair.clashes.items()},
        "shared_energy": list(pair.reach),
        "strength_ratio": pair.ratio,
        "equal_weights": None if pair.equal_weights is None else list(pair.equal_weights),
        "total": likeness_facts(pair.total),
        "blocks": {name: likeness_facts(likeness) for name, likeness in pair.blocks.items()},
    }


def likeness_facts(found: Likeness) -> dict[str, Any]:
    """``modules``, ``norms``, ``cosine``, ``sign_conflict`` (estimated share of entries with opposite signs), ``column_overlap`` and
    ``row_overlap`` of the subspaces, each with ``…_by_chance``, what random subspaces would have."""
    return {
        "modules": found.modules,
        "norms": list(found.norms),
        "cosine": found.cosine,
        "sign_conflict": found.conflict,
        "column_overlap": found.columns.share,
        "column_overlap_by_chance": found.columns.chance,
        "row_overlap": found.rows.share,
        "row_overlap_by_chance": found.rows.chance,
    }


def left_out_facts(left_out: Sequence[LeftOut]) -> list[dict[str, str]]:
    """Files of a folder that were left out: ``file``, ``reason`` in a few words, ``detail``."""
    return [{"file": str(item.path), "reason": item.reason, "detail": line(item.detail)} for item in left_out]


def first_unknown(adapter: Adapter) -> dict[str, str]:
    """The first tensors that were not understood → why."""
    return {line(tensor): line(why) for tensor, why in list(adapter.coverage.unknown.items())[:MOST_UNKNOWN]}


def _by_value(counts: Mapping[int, int] | Mapping[float, int]) -> dict[str, int]:
    return {f"{value:g}": number for value, number in counts.items()}
