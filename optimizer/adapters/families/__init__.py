"""Base model families; a new family needs a module with its table and an entry in ``FAMILIES``."""

from optimizer.adapters.families.family import Family, Native, Run, Sign
from optimizer.adapters.families.flux_1 import FLUX1
from optimizer.adapters.families.qwen_image import QWEN_IMAGE
from optimizer.adapters.families.stable_diffusion import SD1, SD2, SDXL
from optimizer.adapters.families.stable_diffusion_3 import SD3
from optimizer.adapters.families.text_encoders import INNER, TextEncoder

FAMILIES: dict[str, Family] = {family.name: family for family in (SD1, SD2, SDXL, SD3, FLUX1, QWEN_IMAGE)}
"""Family name → family, in the order in which they are tried on a file."""

PIPELINES: dict[str, tuple[str, ...]] = {
    "StableDiffusionPipeline": ("sd1", "sd2"),
    "StableDiffusionXLPipeline": ("sdxl",),
    "StableDiffusion3Pipeline": ("sd3",),
    "FluxPipeline": ("flux1",),
}
"""diffusers pipeline class → names of its adapter families."""

__all__ = ["FAMILIES", "INNER", "PIPELINES", "Family", "Native", "Run", "Sign", "TextEncoder"]
