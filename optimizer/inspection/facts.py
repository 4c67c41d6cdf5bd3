"""Facts: machine-readable output of ``inspect`` and ``ls``. Keys are stable; the functions' docstrings document them.

Every string from an untrusted file is one printable line. Numbers are finite; unknown values are null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optimizer.adapters import Adapter, distillation
from optimizer.inspection.diagnosis import diagnose
from optimizer.inspection.file_metadata import line, particulars
from optimizer.inspection.gather import Found, GatheredFiles, LeftOut
from optimizer.inspection.similarity import Kinship, Likeness, kinships
from optimizer.inspection.strength import Anatomy, BlockAnatomy, anatomy

MOST_UNKNOWN = 10
"""Maximum number of unknown tensors that are listed."""


@dataclass(frozen=True)
class Inspection:
    """Results of ``inspect``: files, anatomies in the order of the files, kinships of their pairs (ab, ac, …, bc, …), and sentences."""

    gathered: GatheredFiles
    anatomies: tuple[Anatomy, ...]
    kinships: tuple[Kinship, ...]
    diagnosis: tuple[str, ...]


def examine(gathered: GatheredFiles) -> Inspection:
    """Measures every file and every pair of files."""
    adapters = [found.adapter for found in gathered.found]
    anatomies = tuple(anatomy(adapter) for adapter in adapters)
    pairs = kinships(adapters)
    return Inspection(gathered, anatomies, pairs, diagnose(anatomies, pairs))


def inspection_facts(found: Inspection) -> dict[str, Any]:
    """Returns the complete output of ``inspect``.

    - ``files``: list of ``file_facts``; ``pairs``: list of ``pair_facts``, in the order ab, ac, …, bc, …
    - ``diagnosis``: human-readable sentences
    - ``left_out``: list of ``left_out_facts``
    """
    files = zip(found.gathered.found, found.anatomies, strict=True)
    return {
        "files": [file_facts(file, body) for file, body in files],
        "pairs": [pair_facts(pair) for pair in found.kinships],
        "diagnosis": list(found.diagnosis),
        "left_out": left_out_facts(found.gathered.left_out),
    }


def file_facts(file: Found, body: Anatomy) -> dict[str, Any]:
    """Returns the facts of one file: those of ``identity_facts``, and

    - ``family_reason``: evidence for the family; ``sha256``: digest of the file's bytes
    - ``parts``: pipeline part → number of modules; ``ranks``, ``alphas``, ``scales`` (alpha / rank): value → number of modules
    - ``idle_modules``: number of modules with ΔW = 0; ``sufficient_rank``: least rank for all modules that keeps 99 % of the energy
    - ``total``, ``blocks``: ``block_facts`` of all modules, and of each block
    - ``distillation``: distillation kind that the file states (LCM, Turbo, …), or null
    - ``metadata``: trigger, title, output_name, author, licence, trigger_origin (what a guessed trigger is taken from), tags, words (most
      frequent words of the training captions)
    - ``unknown_tensors``: number of unknown tensors; ``unknown``: the first of them → reason
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
        "metadata": asdict(particulars(adapter.metadata, file.trigger, file.path)),
        "unknown_tensors": len(adapter.coverage.unknown),
        "unknown": first_unknown(adapter),
    }


def identity_facts(file: Found) -> dict[str, Any]:
    """Returns the identity of a file: ``name``, ``file``, ``family``, ``dialect``, ``kinds`` (kind → number of modules), ``bytes``."""
    adapter = file.adapter
    return {
        "name": adapter.name,
        "file": str(file.path),
        "family": file.family,
        "dialect": line(adapter.dialect),
        "kinds": dict(adapter.kinds),
        "bytes": file.path.stat().st_size,
    }


def block_facts(block: BlockAnatomy) -> dict[str, Any]:
    """Returns the facts of one block.

    - ``name``; ``modules``: number of modules; ``norm``: ‖ΔW‖; ``energy_share``: share of the file's ‖ΔW‖²
    - ``weights``: mean, std, min and max of the stored values
    - ``rank``, ``effective_rank``, ``rank_for_90``, ``rank_for_99`` (percent of energy): medians over the modules
    """
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
    """Returns the facts of a pair of files; lists of two are in the order of ``names``.

    - ``names``, ``families``; ``shared``: number of shared modules; ``only``: numbers of modules that only one file changes
    - ``shape_conflicts``: path → both shapes; ``shared_energy``: share of each file's energy in the shared modules
    - ``strength_ratio``: ‖ΔWₐ‖ / ‖ΔW_b‖ over the shared modules, or null if either is 0
    - ``equal_weights``: weights with sum 1 at which both files are equally strong, or null if either is 0
    - ``total``, ``blocks``: ``likeness_facts`` of all shared modules, and by block name
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
    """Returns the similarity of a pair of files.

    - ``modules``, ``norms``, ``cosine``; ``sign_conflict``: estimated share of entries with opposite signs
    - ``column_overlap``, ``row_overlap``: overlap of the subspaces; ``…_by_chance``: expected overlap of random subspaces
    """
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
    """Returns the skipped files of a folder: ``file``, ``reason`` in a few words, ``detail``."""
    return [{"file": str(item.path), "reason": item.reason, "detail": line(item.detail)} for item in left_out]


def first_unknown(adapter: Adapter) -> dict[str, str]:
    """Returns key → reason for the first ``MOST_UNKNOWN`` unrecognised tensors."""
    return {line(tensor): line(why) for tensor, why in list(adapter.coverage.unknown.items())[:MOST_UNKNOWN]}


def _by_value(counts: Mapping[int, int] | Mapping[float, int]) -> dict[str, int]:
    return {f"{value:g}": number for value, number in counts.items()}
