"""Contents: interprets the keys of a file before any tensor is read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from optimizer.adapters.families import FAMILIES, Family
from optimizer.adapters.files.container import Header
from optimizer.adapters.names.keys import dialect_of, suggestion, target_of
from optimizer.adapters.names.targets import Target
from optimizer.adapters.names.tensor_suffixes import NO_FACTOR, WEIGHT, Key, Refusal, split_key
from optimizer.errors import AdapterError

_LISTED = 10
# Key prefixes of checkpoints, to detect a checkpoint that is given as a source; LoRA keys also end in the name of a factor.
_MODEL = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.embedders.")

Keys = Mapping[str, Key]
"""Tensor name → module name in the file, and suffix."""


@dataclass(frozen=True)
class Contents:
    """One interpretation of a file's keys, valid for one or several base model families.

    Attributes:
        families: families that yield this interpretation.
        modules: target of a module → suffix → tensor name.
        unknown: tensor name → reason why it is skipped.
        dialect: human-readable name of the dialect.
        clash: error about two tensors for one module and suffix, or None.
    """

    families: tuple[Family, ...]
    modules: Mapping[Target, Mapping[str, str]]
    unknown: Mapping[str, str]
    dialect: str
    clash: AdapterError | None = None


def read_contents(header: Header, allow_unknown: bool) -> list[Contents]:
    """Returns the distinct interpretations of the keys by the families that recognise the most keys.

    Args:
        header: header of the file.
        allow_unknown: if True, skip unrecognised and optional tensors.

    Raises:
        AdapterError: a tensor cannot be merged, or is not recognised (unless allowed), or two tensors have one module and suffix.
    """
    keys, left_out = _split_keys(header, allow_unknown)
    ways = [_interpretation(keys, family, header) for family in FAMILIES.values()]
    fewest = min(map(_faults, ways))
    best = _join([way for way in ways if _faults(way) == fewest])
    unknown = {**left_out, **best[0].unknown}
    if unknown and not (allow_unknown and best[0].modules):
        raise _strangers(unknown, header)
    if best[0].clash:
        raise best[0].clash
    return [replace(way, unknown={**left_out, **way.unknown}) for way in best]


def _faults(way: Contents) -> tuple[int, bool]:
    return len(way.unknown), way.clash is not None


def _split_keys(header: Header, allow_unknown: bool) -> tuple[dict[str, Key], dict[str, str]]:
    keys: dict[str, Key] = {}
    left_out: dict[str, str] = {}
    refused: dict[str, Refusal] = {}
    for tensor in header.entries:
        meaning = split_key(tensor)
        if isinstance(meaning, Key):
            keys[tensor] = meaning
        elif not isinstance(meaning, Refusal):
            left_out[tensor] = meaning.reason
        elif allow_unknown and meaning.optional:
            left_out[tensor] = meaning.kind
        else:
            refused[tensor] = meaning
    if refused:
        raise _refusal(refused, header)
    scaled = {key.stem for key in keys.values() if key.suffix == "on_input"}
    stray = {tensor for tensor, key in keys.items() if key.suffix == WEIGHT and key.stem not in scaled}
    known = {tensor: key for tensor, key in keys.items() if tensor not in stray}
    return known, left_out | {tensor: NO_FACTOR for tensor in keys if tensor in stray}


def _interpretation(keys: Keys, family: Family, header: Header) -> Contents:
    targets = {stem: target_of(stem, family) for stem in dict.fromkeys(key.stem for key in keys.values())}
    modules: dict[Target, dict[str, str]] = {}
    owners: dict[str, Target] = {}
    unknown: dict[str, str] = {}
    clash: AdapterError | None = None
    for tensor, key in keys.items():
        target = targets[key.stem]
        if target is None:
            unknown[tensor] = "no known module"
        elif rival := _rival(target, key.suffix, modules, owners):
            problem = f"stands for the same as {rival!r}: {key.suffix} of {target.paths[0]}"
            clash = clash or AdapterError(problem, file=header.path, key=tensor, remedy="the file mixes two adapters: split it")
        else:
            modules.setdefault(target, {})[key.suffix] = tensor
            owners.update(dict.fromkeys(target.paths, target))
    dialects = Counter(dialect_of(stem, target) for stem, target in targets.items() if target)
    return Contents((family,), modules, unknown, " + ".join(sorted(dialects, key=lambda name: -dialects[name])), clash)


def _rival(target: Target, suffix: str, modules: Mapping[Target, Mapping[str, str]], owners: Mapping[str, Target]) -> str | None:
    """Returns a conflicting tensor: one with this target and suffix, or one for a module of this target in another target; else None."""
    other = next((owner for path in target.paths if (owner := owners.get(path, target)) != target), None)
    return next(iter(modules[other].values())) if other else modules.get(target, {}).get(suffix)


def _join(ways: list[Contents]) -> list[Contents]:
    """Returns the interpretations with equal ones joined, each with all of its families."""
    joined: list[Contents] = []
    for way in ways:
        for i, other in enumerate(joined):
            if other.modules == way.modules:
                joined[i] = replace(other, families=(*other.families, *way.families))
                break
        else:
            joined.append(way)
    return joined


def _refusal(refused: Mapping[str, Refusal], header: Header) -> AdapterError:
    kinds = Counter(refusal.kind for refusal in refused.values())
    kind = kinds.most_common()[0][0]
    tensor, refusal = next((t, r) for t, r in refused.items() if r.kind == kind)
    problem = f"is {kind}, which cannot be merged as a low-rank sum ({kinds[kind]} tensors)"
    remedy = f"{refusal.remedy}, or leave these out with --allow-unknown" if refusal.optional else refusal.remedy
    return AdapterError(problem, file=header.path, key=tensor, remedy=remedy)


def _strangers(unknown: Mapping[str, str], header: Header) -> AdapterError:
    count = len(header.entries)
    if len(unknown) == count and set(unknown.values()) == {NO_FACTOR}:
        what = "a whole model, not a LoRA" if any(name.startswith(_MODEL) for name in unknown) else "no LoRA"
        problem = f"is {what}: none of its {count} tensors is a factor of one, the first is {next(iter(unknown))[:160]}"
        remedy = "name a LoRA, LoHa or LoKr file of a supported base model, not a checkpoint, which --base takes, or an embedding"
        return AdapterError(problem, file=header.path, remedy=remedy)
    alike: dict[str, list[str]] = {}
    for tensor in unknown:
        alike.setdefault(re.sub(r"\d+", "#", tensor), []).append(tensor)
    kinds = list(alike.values())
    listed = "; ".join(_description(kind, unknown[kind[0]]) for kind in kinds[:_LISTED])
    more = f"; and {sum(map(len, kinds[_LISTED:]))} more" if len(kinds) > _LISTED else ""
    if len(unknown) == count:
        remedy = "name a LoRA, LoHa or LoKr file of a supported base model, not a checkpoint or an embedding"
    else:
        remedy = "check that the file belongs to a supported base model, or leave these out with --allow-unknown"
    return AdapterError(f"{len(unknown)} of {count} tensors are not understood: {listed}{more}", file=header.path, remedy=remedy)


def _description(kind: list[str], reason: str) -> str:
    """Returns a description of tensors whose names differ only in their numbers."""
    others = f" and {len(kind) - 1} like it" if len(kind) > 1 else ""
    return f"{kind[0][:160]}{others} ({reason}; nearest pattern: {suggestion(kind[0])})"
