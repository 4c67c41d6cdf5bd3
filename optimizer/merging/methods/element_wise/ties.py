"""TIES: trims entries, elects signs, and averages the entries that have the elected sign."""

from __future__ import annotations

from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.tiles import Slabs
from optimizer.merging.methods.element_wise.magnitude import trimmed
from optimizer.merging.methods.method import Method
from optimizer.merging.methods.parameter import Parameter
from optimizer.merging.methods.shared_parameters import DENSITY, SCALE, DensitySettings, ScaleSettings

ElectOn = Literal["raw", "weighted"]
Majority = Literal["total", "frequency"]
Normalise = Literal["count", "weight", "none"]

ELECT_ON = Parameter(
    name="elect_on",
    description="What TIES elects the sign of an entry from: the sources' entries as they are (raw), or times their weights (weighted).",
    default="raw",
    start="raw",
    choices=get_args(ElectOn),
)
MAJORITY = Parameter(
    name="majority",
    description="How TIES elects the sign of an entry: by the sum over the sources (total), or by how many sources have it (frequency).",
    default="total",
    start="total",
    choices=get_args(Majority),
    searched=False,  # nearly equal for two sources
)
NORMALISE = Parameter(
    name="normalise",
    description="What TIES divides the sum of the agreeing sources by: their number (count), their weights (weight), or nothing (none).",
    default="count",
    start="count",
    choices=get_args(Normalise),
)
VOTE = (ELECT_ON, MAJORITY, NORMALISE, SCALE)
"""Parameters of the election and the mean that follows it."""

MERGEKIT_VOTE = "elect_on weighted; normalise weight (its normalize: true) at positive weights, or none"
"""Values of the parameters at which mergekit elects and averages alike."""


class VoteSettings(ScaleSettings, Protocol):
    """Settings of the election and the mean that follows it."""

    @property
    def elect_on(self) -> ElectOn: ...
    @property
    def majority(self) -> Majority: ...
    @property
    def normalise(self) -> Normalise: ...


class TiesSettings(DensitySettings, VoteSettings, Protocol):
    """Settings of TIES."""


def ties(deltas: Deltas, settings: TiesSettings, /) -> Tensor:
    """Returns the TIES-Merging (arXiv 2306.01708, algorithm 1) of the sources' ΔW.

    Reads ``density`` (share of entries kept of each source), ``elect_on``, ``majority``, ``normalise`` and ``scale`` (the paper's λ).
    """
    return agreed(trimmed(deltas.dense, settings.density), deltas.columns, settings)


def agreed(values: Slabs, columns: Tensor, settings: VoteSettings) -> Tensor:
    """Elects a sign for every entry and merges the sources that have it (algorithm 1, steps 2 and 3).

    The elected sign is that of a sum over sources, + if the sum is 0. ``elect_on`` selects the summands: the raw entries
    (``raw``, as in PEFT) or the entries times their weights (``weighted``, as in mergekit). ``majority`` selects whether their values
    count (``total``, the paper) or only their signs, one vote per source (``frequency``; mergekit's ``count``). The weighted entries
    with the elected sign are added and divided by their number (``normalise`` = ``count``, PEFT and the paper), by the sum of their
    weights' magnitudes (``weight``, mergekit), or not divided (``none``).

    Args:
        values: values of the n sources, 0 for dropped entries.
        columns: signed, nonzero weights, (n, b, 1, 1).
        settings: fields of the recipe.

    Returns:
        The merged values times ``scale``, (b, rows, columns).
    """
    return values.merged(lambda parts: _agreed(parts, columns, settings))


def _agreed(parts: list[Tensor], columns: Tensor, settings: VoteSettings) -> Tensor:
    """Returns the elected and merged values of one tile of rows."""
    voices = columns.sign() if settings.elect_on == "weighted" else torch.ones_like(columns)
    elected = _elected(parts, columns, settings)
    merged = torch.zeros_like(elected)
    divisor = torch.zeros_like(elected) if settings.normalise != "none" else None
    for part, weight, voice in zip(parts, columns, voices, strict=True):
        own = part.mul_(elected).mul_(voice).relu_()  # the entry's magnitude where it has the elected sign
        merged.addcmul_(own, weight * voice)
        if divisor is not None:
            divisor.addcmul_(own.sign_(), weight.abs() if settings.normalise == "weight" else torch.ones_like(weight))
    if divisor is not None:
        merged /= divisor.add_(divisor.clone().eq_(0))
    return merged.mul_(elected).mul_(settings.scale)


def _elected(parts: list[Tensor], columns: Tensor, settings: VoteSettings) -> Tensor:
    """Returns the elected signs, 1 or −1, (b, rows, columns), fp32."""
    ballot = torch.zeros_like(parts[0])
    for part, weight in zip(parts, columns, strict=True):
        vote = part.sign() if settings.majority == "frequency" else part
        if settings.elect_on == "weighted":
            ballot.addcmul_(vote, weight.sign() if settings.majority == "frequency" else weight)
        else:
            ballot.add_(vote)
    return ballot.ge_(0).mul_(2).sub_(1)


TIES = Method(
    "ties",
    ties,
    "TIES, arXiv 2306.01708, algorithm 1",
    "λ · mean of the wᵢ·trim(ΔWᵢ) that have the elected sign",
    (DENSITY, *VOTE),
    reproduces=("PEFT: ties_svd at the same rank", f"mergekit: {MERGEKIT_VOTE}"),
)
