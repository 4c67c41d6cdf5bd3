"""Core space: TIES on the small core matrices of the sources in shared left and right bases."""

from __future__ import annotations

from dataclasses import replace

import torch

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank, svd
from optimizer.merging.methods.element_wise.magnitude import trimmed
from optimizer.merging.methods.element_wise.ties import VOTE, TiesSettings, agreed
from optimizer.merging.methods.method import Method
from optimizer.merging.methods.shared_parameters import DENSITY
from optimizer.merging.methods.spectral.sign_convention import oriented


def core(deltas: Deltas, settings: TiesSettings, /) -> LowRank:
    """Returns TIES in core space (arXiv 2509.17786): Mᵢ = UᵀΔWᵢV, then ΔW = U · TIES(Mᵢ) · Vᵀ.

    U holds the left singular vectors of [B₁ | … | B_N], V the right ones of [A₁; …; A_N], where ΔWᵢ = BᵢAᵢ. The paper uses the stored
    factors; here they are √σ-balanced singular vectors, so that the result depends on ΔW alone. The cores are lossless, and the
    result has rank Σ rᵢ, exactly. The bases are computed in double precision, as in ``knots``.

    Reads the settings of ``ties``.
    """
    canonical = [svd(LowRank(term.up.double(), term.down.double())).balanced() for term in deltas.terms]
    left = oriented(torch.linalg.svd(torch.cat([term.up for term in canonical], dim=-1), full_matrices=False).U).float()
    right = oriented(torch.linalg.svd(torch.cat([term.down for term in canonical], dim=-2), full_matrices=False).Vh.mT).mT.float()
    cores = [((left.mT @ term.up) @ (term.down @ right.mT)) for term in deltas.terms]
    values = replace(deltas.dense, shape=(len(left), left.shape[2], right.shape[1]), rows=lambda i, rows: cores[i][:, rows].clone())
    return LowRank(left @ agreed(trimmed(values, settings.density), deltas.columns, settings), right)


CORE = Method(
    "core",
    core,
    "Core Space, arXiv 2509.17786",
    "U · ties(UᵀΔWᵢV) · Vᵀ in common bases U, V",
    (DENSITY, *VOTE),
    cost="core",
)
