"""Table of all merge methods, used by the search, the recipes and ``docs/methods.md``."""

from __future__ import annotations

from optimizer.merging.methods.element_wise.breadcrumbs import breadcrumbs, breadcrumbs_ties
from optimizer.merging.methods.element_wise.consensus import consensus
from optimizer.merging.methods.element_wise.dare import dare_linear, dare_ties
from optimizer.merging.methods.element_wise.della import della_linear, della_ties
from optimizer.merging.methods.element_wise.magnitude import magnitude_prune
from optimizer.merging.methods.element_wise.ties import ties
from optimizer.merging.methods.method import Method, Parameter
from optimizer.merging.methods.spectral.core import core
from optimizer.merging.methods.spectral.iso import iso
from optimizer.merging.methods.spectral.knots import knots, knots_dare
from optimizer.merging.methods.spectral.orthogonalize import orthogonalize
from optimizer.merging.methods.spectral.tsv import tsv
from optimizer.merging.methods.spherical.karcher import karcher
from optimizer.merging.methods.spherical.slerp import nuslerp, slerp
from optimizer.merging.methods.weighted_sum import model_soup, weighted_sum

_KEPT = Parameter("density", default=0.4, low=0.1, high=1.0)
_WINDOW = Parameter("epsilon", default=0.1, low=0.0, high=0.2)
_LARGEST = Parameter("gamma", default=0.01, low=0.0, high=0.05)
_ELECT = Parameter("elect_on", default="raw", choices=("raw", "weighted"))
_MAJORITY = Parameter("majority", default="total", choices=("total", "frequency"), searched=False)  # nearly equal for two sources
_MEAN = Parameter("normalise", default="count", choices=("count", "weight", "none"))
_LAMBDA = Parameter("scale", default=1.0, low=0.5, high=2.0, searched=False)  # redundant with the weights
_RESCALE = Parameter("rescale", default="inverse", choices=("inverse", "l1", "none"))
_MASK = Parameter("mask_scale", default=0.4, low=0.2, high=0.6)
_QUORUM = Parameter("quorum", default=2, choices=(1, 2))
_ISOTROPY = Parameter("isotropy", default=1.0, low=0.0, high=1.0)
_SIDE = Parameter("side", default="input", choices=("input", "output"))
_STRENGTH = Parameter("strength", default=1.0, low=0.0, high=1.0)
_VOTE = (_ELECT, _MAJORITY, _MEAN, _LAMBDA)

_RANDOM_TIES = (_RESCALE, *_VOTE)

_STACK = "every loader: all sources at their weights"
_MERGEKIT_VOTE = "mergekit{}: elect_on weighted; normalise weight (its normalize: true) at positive weights, or none"
_CHANCE_VOTE = _MERGEKIT_VOTE.format(", but for its random numbers") + "; rescale l1 (its rescale: true) or none"
_MERGEKIT_RESCALE = "mergekit, but for its random numbers: rescale l1 (its rescale: true) or none"
_SVD = "PEFT: {}_svd at the same rank"
_BY_CHANCE = "PEFT, but for its random numbers: {}_svd at the same rank"

_TABLE = (
    Method(
        "linear",
        weighted_sum,
        "task arithmetic, arXiv 2212.04089, section 2",
        "Σ wᵢΔWᵢ",
        cost="factors",
        linear=True,
        reproduces=(_STACK, "mergekit: task_arithmetic", "not PEFT's linear nor kohya's merge, which add cross terms"),
    ),
    Method(
        "concat",
        weighted_sum,
        "task arithmetic, arXiv 2212.04089, section 2",
        "Σ wᵢΔWᵢ at rank Σ rᵢ",
        rank="forbidden",
        cost="factors",
        linear=True,
        reproduces=("PEFT: cat", "not kohya's --concat, which keeps the first source's alpha"),
    ),
    Method(
        "svd",
        weighted_sum,
        "task arithmetic, arXiv 2212.04089, section 2, truncated (Eckart & Young 1936)",
        "the best rank-r approximation of Σ wᵢΔWᵢ",
        rank="required",
        cost="core",
        linear=True,
        reproduces=("PEFT: svd", "kohya: svd_merge_lora without its clamp"),
    ),
    Method(
        "add_difference",
        weighted_sum,
        "task arithmetic, arXiv 2212.04089, section 2 (task analogies)",
        "w₁A + w₂B − w₃C",
        cost="factors",
        linear=True,
        commutes=False,
        signs=(1, 1, -1),
        most=3,
        reproduces=("SuperMerger: add difference of whole models, A + α(B − C), at weights 1, α, α",),
    ),
    Method(
        "model_soup",
        model_soup,
        "Model Soups, arXiv 2203.05482",
        "Σ wᵢΔWᵢ / Σ |wᵢ|",
        cost="factors",
        homogeneous=False,
        reproduces=("mergekit: linear with normalize: true, at positive weights",),
    ),
    Method(
        "slerp",
        slerp,
        "Shoemake 1985, Animating rotation with quaternion curves",
        "(|w₁| + |w₂|) · slerp(ΔW₁, ΔW₂; t = |w₂| / (|w₁| + |w₂|))",
        cost="factors",
        most=2,
        reproduces=("mergekit: nuslerp with a base model, at positive weights that add up to 1",),
    ),
    Method(
        "nuslerp",
        nuslerp,
        "Shoemake 1985, for every row of ΔW",
        "slerp, row by row",
        cost="factors",
        most=2,
        reproduces=("mergekit: nuslerp with a base model and nuslerp_flatten: false, at positive weights that add up to 1",),
    ),
    Method(
        "karcher",
        karcher,
        "Karcher 1977, Riemannian center of mass and mollifier smoothing",
        "Σ |wᵢ|‖ΔWᵢ‖ · the mean of the directions on the sphere",
        cost="factors",
        reproduces=("mergekit: karcher, did it work on ΔW and not on whole weights, at weights 1/N",),
    ),
    Method(
        "ties",
        ties,
        "TIES, arXiv 2306.01708, algorithm 1",
        "λ · mean of the wᵢ·trim(ΔWᵢ) that have the elected sign",
        (_KEPT, *_VOTE),
        reproduces=(_SVD.format("ties"), _MERGEKIT_VOTE.format("")),
    ),
    Method(
        "dare_linear",
        dare_linear,
        "DARE, arXiv 2311.03099, equation 1",
        "Σ wᵢ·drop(ΔWᵢ) / density",
        (_KEPT, _RESCALE),
        linear=True,
        seeded=True,
        reproduces=(_BY_CHANCE.format("dare_linear"), _MERGEKIT_RESCALE),
    ),
    Method(
        "dare_ties",
        dare_ties,
        "DARE, arXiv 2311.03099, equation 1, then TIES, arXiv 2306.01708, algorithm 1, steps 2 and 3",
        "ties with drop(ΔWᵢ) / density for trim(ΔWᵢ)",
        (_KEPT, *_RANDOM_TIES),
        seeded=True,
        reproduces=(_BY_CHANCE.format("dare_ties"), _CHANCE_VOTE),
    ),
    Method(
        "della_linear",
        della_linear,
        "MAGPRUNE of DELLA, arXiv 2406.11617",
        "Σ wᵢ·magprune(ΔWᵢ)",
        (_KEPT, _WINDOW, _RESCALE),
        linear=True,
        seeded=True,
        reproduces=(_MERGEKIT_RESCALE,),
    ),
    Method(
        "della_ties",
        della_ties,
        "DELLA, arXiv 2406.11617",
        "ties with magprune(ΔWᵢ) for trim(ΔWᵢ)",
        (_KEPT, _WINDOW, *_RANDOM_TIES),
        seeded=True,
        reproduces=(f"{_CHANCE_VOTE}; its name is della",),
    ),
    Method(
        "breadcrumbs",
        breadcrumbs,
        "Model Breadcrumbs, arXiv 2312.06795",
        "Σ wᵢ·mask(ΔWᵢ), without the largest and the smallest entries",
        (_KEPT, _LARGEST),
        linear=True,
        reproduces=("mergekit: breadcrumbs where γ drops an entry or more (where it drops none, mergekit drops all)",),
    ),
    Method(
        "breadcrumbs_ties",
        breadcrumbs_ties,
        "Model Breadcrumbs, arXiv 2312.06795, then TIES, arXiv 2306.01708, algorithm 1, steps 2 and 3",
        "ties with breadcrumbs' mask for trim(ΔWᵢ)",
        (_KEPT, _LARGEST, *_VOTE),
        reproduces=(_MERGEKIT_VOTE.format("") + "; where γ drops an entry or more",),
    ),
    Method(
        "magnitude_prune",
        magnitude_prune,
        "TIES, arXiv 2306.01708, section 3, step 1",
        "Σ wᵢ·trim(ΔWᵢ)",
        (_KEPT,),
        linear=True,
        reproduces=(_SVD.format("magnitude_prune"),),
    ),
    Method(
        "consensus",
        consensus,
        "Consensus merging with TALL masks, arXiv 2405.07813",
        "entries of Σ wᵢΔWᵢ that enough sources want",
        (_MASK, _QUORUM, _LAMBDA),
    ),
    Method(
        "knots",
        knots,
        "KnOTS, arXiv 2410.19735",
        "U · ties(ΣVᵢᵀ), where [ΔW₁ | … | ΔW_N] = UΣ[V₁ᵀ | … | V_Nᵀ]",
        (_KEPT, *_VOTE),
        cost="core",
    ),
    Method(
        "knots_dare",
        knots_dare,
        "KnOTS, arXiv 2410.19735",
        "U · dare_ties(ΣVᵢᵀ)",
        (_KEPT, *_RANDOM_TIES),
        cost="core",
        seeded=True,
    ),
    Method(
        "core",
        core,
        "Core Space, arXiv 2509.17786",
        "U · ties(UᵀΔWᵢV) · Vᵀ in common bases U, V",
        (_KEPT, *_VOTE),
        cost="core",
    ),
    Method(
        "tsv",
        tsv,
        "TSV-M, arXiv 2412.00081",
        "λ · Û diag(wᵢΣᵢ) V̂ᵀ, all sources' singular vectors whitened",
        (_KEPT, _LAMBDA),
        cost="core",
    ),
    Method(
        "iso",
        iso,
        "Iso-C, arXiv 2502.04959",
        "λ · U((1 − β)Σ + βσ̄I)Vᵀ of UΣVᵀ = Σ wᵢΔWᵢ",
        (_ISOTROPY, _LAMBDA),
        cost="core",
    ),
    Method(
        "orthogonalize",
        orthogonalize,
        "NP-LoRA, arXiv 2511.11051",
        "w₁ΔW₁ + Σ wᵢΔWᵢ(I − s·QQᵀ), Q from the sources before",
        (_SIDE, _STRENGTH),
        cost="core",
        commutes=False,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _TABLE}
