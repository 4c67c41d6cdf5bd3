"""Declared alphas: alpha values from the file header or the PEFT configuration, used where a module has no ``.alpha`` tensor.

diffusers stores the fields of PEFT's LoraConfig as JSON under ``lora_adapter_metadata`` in the file's header, each prefixed with the
name of the pipeline part (``unet.lora_alpha``). PEFT itself writes them to ``adapter_config.json`` in the same folder.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optimizer.adapters.expand import BrokenModule
from optimizer.adapters.factors import Factors
from optimizer.adapters.files.container import Header
from optimizer.adapters.names.keys import is_peft
from optimizer.adapters.names.paths import TEMPLATES
from optimizer.errors import AdapterError

METADATA_KEY = "lora_adapter_metadata"
_CONFIG = "adapter_config.json"
_DEFAULT, _RANK = 8.0, 8  # PEFT's LoraConfig.lora_alpha and LoKrConfig.r
_KINDS = ("LORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT")


@dataclass(frozen=True)
class Declared:
    """The declared alphas of one pipeline part.

    Attributes:
        alpha: default alpha, for every module that no pattern matches; None means alpha = rank.
        patterns: module name suffix (starting at a dot) → alpha; a pattern with a leading ``^`` matches the whole name.
        rank_stabilised: if True, the scale is alpha / √rank instead of alpha / rank (rsLoRA, arXiv:2312.03732).
        settings: all fields of the PEFT configuration.
    """

    alpha: float | None
    patterns: Mapping[str, float]
    rank_stabilised: bool
    settings: Mapping[str, Any]

    def alpha_of(self, name: str, rank: int) -> float:
        """Returns the alpha of a module, such that alpha / rank is its scale.

        Args:
            name: the module's name relative to its part.
            rank: rank of the module's factors.
        """
        alpha = next((value for pattern, value in self.patterns.items() if _matches(pattern, name)), self.alpha)
        if alpha is None:
            return float(rank)
        return alpha * math.sqrt(rank) if self.rank_stabilised else alpha

    def with_peft_scale(self, name: str, suffixes: Collection[str], factors: Factors) -> Factors:
        """Returns the factors, rescaled from LyCORIS's scale 1 to PEFT's alpha / r for a PEFT LoKr with two full matrices."""
        if self.settings.get("peft_type") != "LOKR" or not set(suffixes) >= {"lokr_w1", "lokr_w2"}:
            return factors
        ranks = self.settings.get("rank_pattern") or {}
        rank = next((ranks[pattern] for pattern in ranks if _matches(pattern, name)), self.settings.get("r", _RANK))
        if not isinstance(rank, int) or rank < 1:
            raise BrokenModule("lokr_w1", f"adapter_config.json gives its rank as {str(rank)[:40]!r}")
        return replace(factors, alpha=factors.alpha * self.alpha_of(name, rank) / rank)


NOTHING = Declared(None, {}, False, {})
"""Default for a part without declared alphas: alpha equals the rank."""


def declared_alphas(header: Header) -> dict[str, Declared]:
    """Returns part → declared alphas, for the parts that have a declaration."""
    if text := header.metadata.get(METADATA_KEY):
        table = _table(text, header.path, METADATA_KEY)
        fields = {part: _under(table, part) for part in TEMPLATES}
        return {part: _parse_declaration(own, header.path, METADATA_KEY) for part, own in fields.items() if own}
    config = header.path.with_name(_CONFIG)
    if any(is_peft(name) for name in header.entries) and config.is_file():
        own = _table(config.read_text("utf-8", "replace"), config, None)
        kind = str(own.get("peft_type", "LORA"))
        if kind not in _KINDS:
            problem = f"is a PEFT adapter of the kind {kind[:40]!r}, which is not read"
            raise AdapterError(problem, file=config, remedy=f"use one of {', '.join(_KINDS)}")
        return dict.fromkeys(TEMPLATES, _parse_declaration(own, config, None))
    return {}


def _under(table: Mapping[str, Any], part: str) -> dict[str, Any]:
    prefix = f"{part}."
    return {key.removeprefix(prefix): value for key, value in table.items() if key.startswith(prefix)}


def _table(text: str, file: Path, key: str | None) -> dict[str, Any]:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"is not valid JSON ({error})", file=file, key=key, remedy="repair or remove it") from error
    if not isinstance(table, dict):
        raise AdapterError("is not a table", file=file, key=key, remedy="repair or remove it")
    return table


def _parse_declaration(fields: Mapping[str, Any], file: Path, key: str | None) -> Declared:
    alpha = fields.get("lora_alpha", fields.get("alpha", _DEFAULT))
    patterns = fields.get("alpha_pattern") or {}
    numbers = [alpha, *(patterns.values() if isinstance(patterns, dict) else [None])]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) and n > 0 for n in numbers):
        raise AdapterError(f"declares an alpha that is not a number above 0: {str(numbers)[:80]}", file=file, key=key, remedy="repair it")
    if strange := [pattern for pattern in patterns if not re.fullmatch(r"\^?[\w.]+", pattern)]:
        raise AdapterError(
            f"the alpha pattern {strange[0][:80]!r} is not a module name", file=file, key=key, remedy="write out the module names"
        )
    return Declared(float(alpha), {k: float(v) for k, v in patterns.items()}, bool(fields.get("use_rslora")), fields)


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("^"):
        return pattern[1:] in (name, name.removeprefix("text_model."))
    return f".{name}".endswith(f".{pattern}")
