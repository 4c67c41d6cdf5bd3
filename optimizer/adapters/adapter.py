"""Adapter: the in-memory form of a LoRA file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from optimizer.adapters.factors import Factors


@dataclass(frozen=True)
class Coverage:
    """Record of which tensors of a file were recognised.

    Attributes:
        understood: names of the tensors that were assigned to a module.
        unknown: tensor name → reason why it was not recognised.
    """

    understood: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Adapter:
    """One LoRA in canonical form.

    Attributes:
        name: short name for tables and file names; letters, digits and ``.+_-`` only.
        modules: canonical module path → factors, e.g. ``unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q``.
        base: base model family: ``sd1``, ``sd2``, ``sdxl``, … or ``unknown``.
        base_reason: evidence for the family, human-readable; empty if there is none.
        dialect: key naming convention of the file, human-readable: ``kohya``, ``diffusers``, …; empty for an adapter not read from a file.
        kinds: kind of adapter (``LoRA``, ``LoHa``, …) → number of the file's modules.
        metadata: metadata strings of the file header (untrusted).
        coverage: which tensors were recognised.
        sha256: hex SHA-256 digest of the file's bytes; empty for an adapter not read from a file.
    """

    name: str
    modules: Mapping[str, Factors]
    base: str = "unknown"
    base_reason: str = ""
    dialect: str = ""
    kinds: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)
    sha256: str = ""
