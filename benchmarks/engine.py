"""How long merges of Stable Diffusion XL's size take, and how exact they are, beside PEFT and a dense SVD.

Run ``python -m benchmarks.engine [--threads 2] [--one-in 100] [--rank 32]``. Three random sources have the true shapes, of which one
module in so many is taken, so that the sample has the proportions of the file. PEFT's ``add_weighted_adapter`` merges the same factors,
as it does by default and, kinder, with ``svd_full_matrices=False``; the dense SVD is ``torch.linalg.svd`` of the same ΔW, whose making
is not even counted. Errors are relative Frobenius errors over all modules: of the sum against ΔW in double precision, else against what
the method computes before it is compressed; the best possible one is read off the dense singular values (Eckart & Young 1936).
Random factors are a hard case: their spectrum falls slowly. ``--decay 1`` lets it fall as those of trained files do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from torch import Tensor, nn

from benchmarks.shapes import random_adapter, sampled, sdxl_shapes
from optimizer.adapters import Adapter
from optimizer.merging import METHODS, LowRank, Merger, Recipe, merge, merge_report

WEIGHTS, DENSITY, ROUNDS = (0.7, 0.5, 0.6), 0.4, 3
PEERS = {"svd": "svd", "ties": "ties_svd", "dare_ties": "dare_ties_svd"}


def main() -> None:
    """Print the peers, then every method."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one-in", type=int, default=100, help="take one module in so many of each shape, at least one")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--decay", type=float, default=0.0, help="singular values fall as k to this power")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    shapes = sampled(sdxl_shapes(), asked.one_in)
    adapters = [random_adapter(f"s{i}", shapes, asked.rank, i, decay=asked.decay) for i in range(len(WEIGHTS))]
    print(
        f"{len(adapters)} sources of rank {asked.rank}, merged to rank {asked.rank}; torch {torch.__version__}, {asked.threads} thread(s)"
    )
    print(f"sample: {len(shapes)} of SDXL's {len(sdxl_shapes())} modules, all {len(set(shapes.values()))} shapes", end="; ")
    print(f"median of {ROUNDS} merges, peers once\n", flush=True)
    with torch.no_grad():
        peers(adapters, asked.rank)
        every_method(adapters, asked.rank)


def peers(adapters: Sequence[Adapter], rank: int) -> None:
    """One line for each combination that PEFT has too."""
    print(f"{'':<11}{'merge':>9}{'PEFT':>10}{'ratio':>7}{'PEFT, thin':>12}{'ratio':>7}{'dense SVD':>11}{'ratio':>7}", end="")
    print(f"{'error':>13}{'PEFT':>12}{'best':>12}")
    model = with_loras(adapters)
    for method, combination in PEERS.items():
        recipe = recipe_of(method, rank)
        own, merged = timed(lambda r=recipe: merge(adapters, r), ROUNDS)  # type: ignore[misc]
        default, _ = timed(lambda c=combination: add_weighted(model, c, rank, full=True))  # type: ignore[misc]
        thin, theirs = timed(lambda c=combination: add_weighted(model, c, rank, full=False))  # type: ignore[misc]
        error, other, best, dense = errors(adapters, recipe, merged, theirs)
        print(f"{method:<11}{own:>7.2f} s{default:>8.1f} s{default / own:>6.0f}x{thin:>10.1f} s{thin / own:>6.0f}x", end="")
        told = f"{other:>12.8f}" if METHODS[method].seeded is False else f"{'(own masks)':>12}"
        print(f"{dense:>9.1f} s{dense / own:>6.0f}x {error:>12.8f}{told}{best:>12.8f}", flush=True)


def every_method(adapters: Sequence[Adapter], rank: int) -> None:
    """One line a method."""
    print(f"\n{'method':<18}{'cost':<10}{'merge':>9}{'error':>10}")
    for name, method in METHODS.items():
        if method.calibrated:
            continue
        sources = adapters[: method.most or None]
        recipe = recipe_of(name, rank, len(sources))
        took, merged = timed(lambda s=sources, r=recipe: merge(s, r), ROUNDS)  # type: ignore[misc]
        error = merge_report(sources, recipe, merged).total.error
        note = "".join((f", {len(sources)} sources" if len(sources) < len(adapters) else "", ", exact" if recipe.rank is None else ""))
        print(f"{name:<18}{method.cost:<10}{took:>7.2f} s{error:>10.4f}{note}", flush=True)


def recipe_of(name: str, rank: int, count: int = len(WEIGHTS)) -> Recipe:
    """The method at its table's defaults."""
    method = METHODS[name]
    fields: dict[str, Any] = method.starting_values()
    return Recipe(method=name, weights=WEIGHTS[:count], rank=None if method.rank == "forbidden" else rank, **fields)


def with_loras(adapters: Sequence[Adapter]) -> LoraModel:
    """Linear layers of the modules' shapes, without base weights, with the sources as PEFT's LoRAs."""
    modules = adapters[0].modules
    layers = {path.replace(".", "_"): empty_layer(f.shape) for path, f in modules.items()}
    rank = next(iter(modules.values())).rank
    config = LoraConfig(r=rank, lora_alpha=rank // 2, target_modules=list(layers))
    model = LoraModel(nn.ModuleDict(layers), {a.name: config for a in adapters}, adapters[0].name)
    for adapter in adapters[1:]:
        model.inject_adapter(model.model, adapter.name)
    for adapter in adapters:
        for path, factors in adapter.modules.items():
            layer: Any = model.model[path.replace(".", "_")]
            layer.lora_A[adapter.name].weight = nn.Parameter(factors.down)
            layer.lora_B[adapter.name].weight = nn.Parameter(factors.up)
    return model


def empty_layer(shape: tuple[int, ...]) -> nn.Linear:
    """A linear layer whose weight is 0 and takes no memory."""
    layer = nn.Linear(shape[1], shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(torch.zeros(()).expand(shape), requires_grad=False)
    return layer


def add_weighted(model: LoraModel, combination: str, rank: int, *, full: bool) -> dict[str, LowRank]:
    """PEFT's merge: module → factors."""
    names = list(model.peft_config)
    density = {} if combination == "svd" else {"density": DENSITY}
    model.add_weighted_adapter(names, list(WEIGHTS), "merged", combination, svd_rank=rank, svd_full_matrices=full, **density)
    layers: Any = model.model
    found = {}
    for path, layer in layers.items():
        found[path] = LowRank(layer.lora_B["merged"].weight.data[None], layer.lora_A["merged"].weight.data[None])
    model.delete_adapter("merged")
    return found


def errors(adapters: Sequence[Adapter], recipe: Recipe, merged: Adapter, theirs: dict[str, LowRank]) -> tuple[float, float, float, float]:
    """Relative errors of ours, of PEFT's and of the best approximation, and how long the dense SVD took."""
    lost, seconds = torch.zeros(4, dtype=torch.float64), 0.0
    rank = recipe.rank
    assert isinstance(rank, int)
    for path, ideal in ideals(adapters, recipe):
        took, sigma = timed(lambda i=ideal: torch.linalg.svd(i, full_matrices=False).S)  # type: ignore[misc]
        seconds += took
        whole, peer = exact(adapters, recipe, path, ideal), theirs[path.replace(".", "_")]
        factors = merged.modules[path]
        ours = LowRank(factors.up[None], factors.down[None])
        energy = sigma.double().square()
        lost += torch.stack([missed(whole, ours), missed(whole, peer), energy[rank:].sum(), whole.square().sum()])
    error, other, best = (lost[:3] / lost[3]).sqrt().tolist()
    return error, other, best, seconds


def ideals(adapters: Sequence[Adapter], recipe: Recipe) -> Iterator[tuple[str, Tensor]]:
    """ΔW in fp32, module by module, before compression."""
    for _, deltas in Merger(adapters, keep=False).deltas(recipe):
        change = recipe.method_record.function(deltas, recipe)
        yield from zip(deltas.paths, change.dense() if isinstance(change, LowRank) else change, strict=True)


def exact(adapters: Sequence[Adapter], recipe: Recipe, path: str, ideal: Tensor) -> Tensor:
    """The module's ΔW in double precision: the weighted sum from the sources themselves, else what the method computed."""
    if not recipe.method_record.linear or recipe.method_record.cost == "entries":
        return ideal.double()
    modules = [a.modules[path] for a in adapters]
    terms = (w * f.scale * (f.up.double() @ f.down.double()) for f, w in zip(modules, recipe.weights, strict=True))
    return torch.stack(list(terms)).sum(dim=0)


def missed(whole: Tensor, found: LowRank) -> Tensor:
    """‖ΔW − found‖² in double precision."""
    return (found.up[0].double() @ found.down[0].double() - whole).square().sum()


def timed(run: Callable[[], Any], rounds: int = 1) -> tuple[float, Any]:
    """Median seconds, and the last result."""
    times = []
    for _ in range(rounds):
        begun = perf_counter()
        result = run()
        times.append(perf_counter() - begun)
    return median(times), result


if __name__ == "__main__":
    main()
