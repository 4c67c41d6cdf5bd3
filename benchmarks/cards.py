"""What the memory plan chooses on cards of several sizes: ``python -m benchmarks.cards``, the table of docs/bases.md.

Sizes are those of the published models (``optimizer.adapters.families``) in two bytes a number, and with denoiser and T5 in one byte
(``--quantize int8``) or half of one (``nf4``); of a card nine tenths count as free. It is arithmetic: nothing is loaded.
"""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers

from optimizer.adapters.families import MODEL_TYPES
from optimizer.rendering import Loading
from optimizer.rendering.memory.free import amount
from optimizer.rendering.memory.placement import Demand, plan_placement

CARDS = (8, 12, 16, 24, 48, 80)
MODELS = {"v1": "SD 1.5", "v2": "SD 2.1", "xl_base": "SDXL", "sd3": "SD 3 medium", "sd35_large": "SD 3.5 large", "flux-dev": "FLUX.1"}
BYTES = {"none": 2.0, "int8": 1.0, "nf4": 0.53}


def main() -> None:
    """Print one row a model and number format."""
    print("| model | weights | " + " | ".join(f"{card} GB" for card in CARDS) + " |\n" + "|---" * (len(CARDS) + 2) + "|")
    for kind, name in MODELS.items():
        for quantize, width in BYTES.items():
            if quantize == "none" or kind in ("xl_base", "sd35_large", "flux-dev"):
                demand = demanded(kind, width)
                title = name if quantize == "none" else f"{name}, `--quantize {quantize}`"
                print(f"| {title} | {amount(demand.weights)} | " + " | ".join(planned(demand, card) for card in CARDS) + " |")


def planned(demand: Demand, card: int) -> str:
    """The plan in a few words."""
    found = plan_placement(demand, int(0.9e9 * card), Loading(), torch.device("cuda"), torch.bfloat16)
    where = {"none": "all there", "model": "idle models off", "sequential": "layer by layer"}[found.offload]
    return f"{where}, {'branch' if found.branch else 'weights'}"


def demanded(model_type: str, width: float) -> Demand:
    """What a known model wants of memory, with its denoiser and T5 in so many bytes a number."""
    family = MODEL_TYPES[model_type]
    plan = family.blueprints[model_type]
    with torch.device("meta"):
        models: dict[str, Any] = {"denoiser": getattr(diffusers, family.pipeline.denoiser_class)(**plan.denoiser)}
        models["vae"] = diffusers.AutoencoderKL(**plan.vae)
        for index, (name, config) in enumerate(plan.texts):
            kind = transformers.T5Config if name == "T5EncoderModel" else transformers.CLIPTextConfig
            models["t5" if name == "T5EncoderModel" else f"text_{index}"] = getattr(transformers, name)(kind(**config))
    numbers = {part: sum(p.numel() for p in model.parameters()) for part, model in models.items()}
    sizes = {part: int(count * (width if part in ("denoiser", "t5") else 2)) for part, count in numbers.items()}
    side = plan.denoiser.get("sample_size", 128) * 8
    return Demand(sizes, "denoiser", side * side, 2, quantised=width != 2)


if __name__ == "__main__":
    main()
