"""Adapter: a source in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from optimizer.adapters.factors import Factors


@dataclass(frozen=True)
class Coverage:
    """Which tensors of a file were understood.

    Attributes:
        understood: tensor names that went into a module.
        unknown: tensor name → why it was not understood.
    """

    understood: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Adapter:
    """One LoRA in canonical form.

    Attributes:
        name: short name for tables and file names, letters, digits and ``.+_-`` only.
        modules: canonical module path → factors, e.g. ``unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q``.
        base: family of the base model: ``sd1``, ``sd2``, ``sdxl``, … or ``unknown``.
        base_reason: what told the family, for people; empty where nothing did.
        dialect: whose tensor names the file has, for people: ``kohya``, ``diffusers``, …; empty for an adapter that was never a file.
        kinds: kind of adapter (``LoRA``, ``LoHa``, …) → number of the file's modules.
        metadata: the file header's own strings (untrusted).
        coverage: which tensors were understood.
        sha256: hex digest of the file's bytes; empty for an adapter that was never a file.
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
