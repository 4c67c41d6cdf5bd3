"""How long a merge takes: every method on two LoRAs of the demo world's size, beside PEFT's ``add_weighted_adapter``.

Run ``python -m benchmarks.merging``. Both sides merge the same factors on one thread, in turns; the median counts. PEFT is given
the combination types that work on ΔW (``…_svd``), the only ones that compute the same thing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, LoraModel

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.merging import Recipe, merge

RANK, DENSITY, WEIGHTS, ROUNDS = 16, 0.4, (0.7, 0.5), 5
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"]

PAIRS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"method": "linear"}, {"combination_type": "cat"}),
    ({"method": "svd", "rank": RANK}, {"combination_type": "svd"}),
    ({"method": "ties", "rank": RANK, "density": DENSITY}, {"combination_type": "ties_svd", "density": DENSITY}),
    ({"method": "dare_linear", "rank": RANK, "density": DENSITY}, {"combination_type": "dare_linear_svd", "density": DENSITY}),
    ({"method": "dare_ties", "rank": RANK, "density": DENSITY}, {"combination_type": "dare_ties_svd", "density": DENSITY}),
    ({"method": "magnitude_prune", "rank": RANK, "density": DENSITY}, {"combination_type": "magnitude_prune_svd", "density": DENSITY}),
)


def unet() -> torch.nn.Module:
    """A U-Net of the demo world's size, untrained."""
    model: torch.nn.Module = UNet2DConditionModel(  # type: ignore[assignment, no-untyped-call]
        sample_size=16,
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=2,
        cross_attention_dim=96,
        attention_head_dim=8,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )
    return model.eval()


def with_two_loras() -> LoraModel:
    """The U-Net with two random LoRAs, ``a`` and ``b``."""
    torch.manual_seed(0)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS, init_lora_weights=False)
    model = LoraModel(unet(), {"a": config, "b": config}, "a")
    model.inject_adapter(model.model, "b")
    return model


def adapter_of(model: LoraModel, name: str) -> Adapter:
    """One of the model's LoRAs in canonical form."""
    modules = {}
    for path, layer in model.model.named_modules():
        if hasattr(layer, "lora_A"):
            up, down = layer.lora_B[name].weight.data, layer.lora_A[name].weight.data
            shape = tuple(layer.get_base_layer().weight.shape)
            modules[f"unet.{path}"] = Factors(up.flatten(1), down.flatten(1), float(RANK), shape)
    return Adapter(name, modules, base="sd1")


def seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def main() -> None:
    """Print one line a method."""
    torch.set_num_threads(1)
    model = with_two_loras()
    adapters = [adapter_of(model, name) for name in ("a", "b")]
    print(f"two LoRAs of rank {RANK}, {len(adapters[0].modules)} modules, torch {torch.__version__}, 1 thread, median of {ROUNDS}")
    print(f"{'method':<16} {'merge':>9} {'PEFT':>9} {'ratio':>7}")
    for ours, theirs in PAIRS:
        recipe = Recipe(weights=WEIGHTS, **ours).bound_to(adapters)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS + 1):
            times[0].append(seconds(lambda r=recipe: merge(adapters, r)))  # type: ignore[misc]
            times[1].append(seconds(lambda t=theirs: add_weighted(model, t)))  # type: ignore[misc]
            model.delete_adapter("merged")
        mine, other = (statistics.median(t[1:]) for t in times)  # the first round warms up
        print(f"{recipe.method:<16} {mine * 1e3:>6.0f} ms {other * 1e3:>6.0f} ms {other / mine:>6.1f}x")


def add_weighted(model: LoraModel, settings: dict[str, Any]) -> None:
    """PEFT's merge of the two LoRAs into a third, ``merged``."""
    rank: dict[str, Any] = {} if settings["combination_type"] == "cat" else {"svd_rank": RANK, "svd_full_matrices": False}
    model.add_weighted_adapter(["a", "b"], list(WEIGHTS), "merged", **rank, **settings)


if __name__ == "__main__":
    main()
