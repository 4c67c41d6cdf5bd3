"""Adapters for the tests of merging: small, with linear layers, convolutions and text encoder modules."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.merging import METHODS, LowRank, Recipe, Router

SHAPES: dict[str, tuple[int, ...]] = {
    "text_encoder.text_model.encoder.layers.0.mlp.fc1": (20, 12),
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": (16, 16),
    "unet.down_blocks.0.resnets.1.conv1": (10, 6, 3, 3),
    "unet.mid_block.attentions.0.proj_in": (14, 9, 1, 1),
    "unet.up_blocks.1.attentions.2.transformer_blocks.0.ff.net.2": (12, 24),
}
PATHS = tuple(SHAPES)

UNCALIBRATED = {name: method for name, method in METHODS.items() if not method.calibrated}
"""Methods that need nothing but the sources: all but those that apply a router."""

# Settings under which every method keeps everything of a single source, and settings under which it loses something.
NEUTRAL: dict[str, dict[str, object]] = {
    **{name: {} for name in ("linear", "concat", "add_difference", "model_soup", "slerp", "nuslerp", "karcher")},
    "svd": {"rank": 64},
    **{name: {} for name in ("ties", "dare_linear", "dare_ties", "della_linear", "della_ties", "breadcrumbs", "breadcrumbs_ties")},
    **{name: {} for name in ("magnitude_prune", "consensus", "knots", "knots_dare", "core", "tsv", "orthogonalize")},
    "iso": {"isotropy": 0.0},
}
LOSSY: list[dict[str, object]] = [
    {"method": "linear"},
    {"method": "linear", "rank": "full"},
    {"method": "concat"},
    {"method": "svd", "rank": 2},
    {"method": "add_difference"},
    {"method": "model_soup"},
    {"method": "slerp"},
    {"method": "nuslerp"},
    {"method": "karcher", "rank": 4},
    {"method": "ties", "density": 0.4},
    {"method": "ties", "density": 0.4, "elect_on": "weighted", "normalise": "none", "scale": 1.3},
    {"method": "ties", "density": 0.7, "majority": "frequency", "rank": 5},
    {"method": "dare_linear", "density": 0.6, "rank": 5},
    {"method": "dare_linear", "density": 0.6, "rescale": "l1"},
    {"method": "dare_ties", "density": 0.6, "rescale": "none", "normalise": "weight", "elect_on": "weighted"},
    {"method": "della_linear", "density": 0.5, "epsilon": 0.2},
    {"method": "della_ties", "density": 0.5, "epsilon": 0.1, "rescale": "l1"},
    {"method": "breadcrumbs", "density": 0.5, "gamma": 0.05},
    {"method": "breadcrumbs_ties", "density": 0.5, "gamma": 0.05, "normalise": "none"},
    {"method": "magnitude_prune", "density": 0.3, "rank": 6},
    {"method": "consensus", "mask_scale": 0.6, "quorum": 2},
    {"method": "knots", "density": 0.5},
    {"method": "knots_dare", "density": 0.6},
    {"method": "core", "density": 0.5},
    {"method": "tsv", "density": 0.5},
    {"method": "iso", "isotropy": 1.0},
    {"method": "orthogonalize", "strength": 0.7},
    {"method": "orthogonalize", "side": "output"},
]


def make_adapter(
    seed: int,
    rank: int = 3,
    alpha: float = 3.0,
    paths: Sequence[str] = PATHS,
    base: str = "unknown",
    whole_numbers: bool = False,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
) -> Adapter:
    """A random adapter; with ``whole_numbers`` the factors' entries are small integers, so that sums of products are exact."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        if whole_numbers:
            return torch.randint(-4, 5, size, generator=generator).float()
        return torch.randn(*size, generator=generator)

    modules = {}
    for path in paths:
        out, fan_in = shapes[path][0], int(torch.tensor(shapes[path][1:]).prod())
        modules[path] = Factors(up=draw(out, rank), down=draw(rank, fan_in), alpha=alpha, shape=shapes[path])
    return Adapter(name=f"lora{seed}", modules=modules, base=base, sha256=hashlib.sha256(f"{seed}".encode()).hexdigest())


def uneven_sources(seed: int = 1) -> list[Adapter]:
    """Three sources of different ranks and alphas; the second lacks the first module, the third the last two."""
    return [
        make_adapter(seed, 3, 2.0),
        make_adapter(seed + 1, 2, 5.0, paths=PATHS[1:]),
        make_adapter(seed + 2, 4, 1.0, paths=PATHS[:3]),
    ]


def random_router(adapters: Sequence[Adapter], seed: int = 7) -> Router:
    """A router whose entries are all different from 0."""
    generator = torch.Generator().manual_seed(seed)
    plain = Router.identity(adapters)
    full = {path: torch.randn(len(matrix), len(matrix), generator=generator) for path, matrix in plain.matrices.items()}
    return replace(plain, matrices=full)


def recipe(settings: dict[str, object], *weights: float, **more: object) -> Recipe:
    """A recipe from one of the settings above."""
    return Recipe.from_data({"weights": weights, **settings, **more})


def low_rank(factors: Factors) -> LowRank:
    """One module's factors as a batch of one, with the scale in ``down``."""
    return LowRank(factors.up.float()[None], (factors.scale * factors.down.float())[None])


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖ in double precision."""
    norm = float(wanted.double().norm())
    return float((found.double() - wanted.double()).norm()) / norm if norm else float(found.double().norm())


def assert_same_change(found: Adapter, wanted: Adapter, factor: float = 1.0, tolerance: float = 3e-6) -> None:
    """Every ΔW of ``found`` is ``factor`` times that of ``wanted``, and both have the same modules."""
    assert set(found.modules) == set(wanted.modules)
    for path, factors in found.modules.items():
        error = relative_error(factors.delta(), factor * wanted.modules[path].delta())
        assert error <= tolerance, f"{path}: relative error {error:.2e}"
