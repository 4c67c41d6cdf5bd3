"""KnOTS: TIES or DARE-TIES in a basis shared by all sources."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from optimizer.merging.algebra.deltas import Deltas
from optimizer.merging.algebra.lowrank import LowRank
from optimizer.merging.algebra.tiles import Slabs
from optimizer.merging.methods.element_wise.dare import RESCALE, DareTiesSettings, dropped
from optimizer.merging.methods.element_wise.magnitude import trimmed
from optimizer.merging.methods.element_wise.ties import VOTE, TiesSettings, agreed
from optimizer.merging.methods.method import Method
from optimizer.merging.methods.shared_parameters import DENSITY
from optimizer.merging.methods.spectral.sign_convention import oriented


def knots(deltas: Deltas, settings: TiesSettings, /) -> LowRank:
    """Returns KnOTS-TIES (arXiv 2410.19735): with [ΔW₁ | … | ΔW_N] = UΣ[V₁ᵀ | … | V_Nᵀ], U · TIES(ΣVᵢᵀ), as in the authors' code.

    The authors' code trims all modules of a model together; this function trims each module separately, as ``ties`` does. The result
    has rank Σ rᵢ, exactly. Reads the settings of ``ties``.
    """
    basis, values = shared_basis(deltas)
    return LowRank(basis, agreed(trimmed(values, settings.density), deltas.columns, settings))


def knots_dare(deltas: Deltas, settings: DareTiesSettings, /) -> LowRank:
    """Returns KnOTS-DARE-TIES (arXiv 2410.19735): ``knots`` with DARE in place of trimming. Reads the settings of ``dare_ties``."""
    basis, values = shared_basis(deltas)
    return LowRank(basis, agreed(dropped(values, deltas, settings), deltas.columns, settings))


def shared_basis(deltas: Deltas) -> tuple[Tensor, Slabs]:
    """Returns U, (b, out, p), and the sources' coordinates UᵀΔWᵢ = ΣVᵢᵀ, (b, p, fan_in) each.

    QR of [upᵢ] and of every downᵢᵀ reduces the SVD to a matrix of the size of the sum of ranks. It is computed in double precision: the
    trimmed entries depend on the basis, and directions of nearly equal singular values should not depend on rounding.
    """
    q, r = torch.linalg.qr(torch.cat([term.up for term in deltas.terms], dim=-1).double())
    parts = r.split([term.rank for term in deltas.terms], dim=-1)
    triangles = [torch.linalg.qr(term.down.mT.double(), mode="r").R for term in deltas.terms]
    core = torch.cat([part @ triangle.mT for part, triangle in zip(parts, triangles, strict=True)], dim=-1)
    basis = oriented(q @ torch.linalg.svd(core, full_matrices=False).U).float()
    ups = [basis.mT @ term.up for term in deltas.terms]
    shape = (len(basis), basis.shape[2], deltas.terms[0].down.shape[2])
    return basis, replace(deltas.dense, shape=shape, rows=lambda i, rows: ups[i][:, rows] @ deltas.terms[i].down)


KNOTS = Method(
    "knots",
    knots,
    "KnOTS, arXiv 2410.19735",
    "U · ties(ΣVᵢᵀ), where [ΔW₁ | … | ΔW_N] = UΣ[V₁ᵀ | … | V_Nᵀ]",
    (DENSITY, *VOTE),
    cost="core",
)
KNOTS_DARE = Method(
    "knots_dare",
    knots_dare,
    "KnOTS, arXiv 2410.19735",
    "U · dare_ties(ΣVᵢᵀ)",
    (DENSITY, RESCALE, *VOTE),
    cost="core",
    seeded=True,
)
