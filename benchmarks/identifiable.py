"""How far sources are from chance on the demo world: each demo source alone, weakened, random in its place, and without effect.

    python -m benchmarks.identifiable [--own 4] [--seeds 3]

A source is identifiable from ``objectives.preservation.identifiable.ERRORS`` standard errors on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.truth import demo_sources_of, load_judge
from objectives import Effects, load_embedder, standard_errors
from optimizer.adapters import Adapter, Factors
from optimizer.rendering import Prompt, compose
from optimizer.search.evaluation.prompt_file import read_words
from studies.demo.world import demo_embedder, demo_sources, demo_words

_SEED = 555_000_001


def main() -> None:
    """Print one row a source: the lowest number of standard errors over seeds, of each variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--own", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    judge, embedder, words = load_judge(), load_embedder(str(demo_embedder())), read_words(demo_words())
    print(f"{asked.own} own prompts, {asked.seeds} seeds: fewest to most standard errors, mean squared effect")
    for source in demo_sources_of(list(demo_sources()), judge):
        found: dict[str, list[tuple[float, float]]] = {}
        for seed in range(asked.seeds):
            prompts = compose([source.subject], words, own=asked.own, joint=0, seed=_SEED + seed).prompts
            base = embedder(judge.pictures(None, prompts))
            for name, adapter in _variants(source.adapter).items():
                found.setdefault(name, []).append(_measured(prompts, base, embedder(judge.pictures(adapter, prompts))))
        print(f"{source.name:<9}" + "  ".join(_cell(name, values) for name, values in found.items()), flush=True)


def _variants(adapter: Adapter) -> Mapping[str, Adapter]:
    random = replace(adapter, modules={path: _random(factors, seed) for seed, (path, factors) in enumerate(adapter.modules.items())})
    return {
        "alone": adapter,
        "× 0.01": _scaled(adapter, 0.01),
        "random × 0.01": _scaled(random, 0.01),
        "× 0": _scaled(adapter, 0.0),
    }


def _scaled(adapter: Adapter, by: float) -> Adapter:
    return replace(adapter, modules={path: replace(factors, up=factors.up * by) for path, factors in adapter.modules.items()})


def _random(factors: Factors, seed: int) -> Factors:
    """Normal factors of the same norms."""
    generator = torch.Generator().manual_seed(seed)
    up, down = (torch.randn(each.shape, generator=generator) for each in (factors.up, factors.down))
    return replace(factors, up=up * (factors.up.float().norm() / up.norm()), down=down * (factors.down.float().norm() / down.norm()))


def _measured(prompts: tuple[Prompt, ...], base: Tensor, alone: Tensor) -> tuple[float, float]:
    effects = Effects(base, alone[None], torch.zeros(len(prompts), dtype=torch.int64))
    return standard_errors(effects, 0), float((alone - base).square().sum(dim=1).mean())


def _cell(name: str, values: list[tuple[float, float]]) -> str:
    errors, sizes = zip(*values, strict=True)
    return f"{name}: {min(errors):.1f} to {max(errors):.1f} ({sum(sizes) / len(sizes):.4f})"


if __name__ == "__main__":
    main()
