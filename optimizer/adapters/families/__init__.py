"""Base model families; a new family needs a module with its record and an entry in ``FAMILIES``."""

from collections.abc import Iterable

from optimizer.adapters.families.blueprint import Blueprint
from optimizer.adapters.families.family import Family, Native, Run, Sign
from optimizer.adapters.families.flux_1 import FLUX1
from optimizer.adapters.families.pipeline_class import Drawing, FilePart, PipelineClass
from optimizer.adapters.families.qwen_image import QWEN_IMAGE
from optimizer.adapters.families.stable_diffusion import SD1, SD2
from optimizer.adapters.families.stable_diffusion_3 import SD3
from optimizer.adapters.families.stable_diffusion_xl import SDXL
from optimizer.adapters.families.text_encoders import INNER, TextEncoder


def pipeline_classes(families: Iterable[Family]) -> dict[str, PipelineClass]:
    """Returns class name → diffusers pipeline class, for the classes that bases are drawn with.

    Raises:
        ValueError: two families have different records of one class, so that a loaded pipeline could not tell which one holds.
    """
    found: dict[str, PipelineClass] = {}
    for family in families:
        if found.setdefault(family.pipeline.name, family.pipeline) != family.pipeline:
            raise ValueError(f"{family.name}: another family describes {family.pipeline.name} differently; share one PipelineClass")
    return {name: pipeline for name, pipeline in found.items() if pipeline.encoding}


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        SD1,
        SD2,
        SDXL,
        SD3,
        FLUX1,
        QWEN_IMAGE,
    )
}
"""Family name → family, in the order in which they are tried on a file."""

PIPELINE_CLASSES = pipeline_classes(FAMILIES.values())
"""Class name → diffusers pipeline class, for the classes that bases are drawn with."""

MODEL_TYPES = {model_type: family for family in FAMILIES.values() for model_type in family.blueprints}
"""diffusers' model type of a single file → its family; ``v2-base`` is the noise-predicting variant of ``v2``."""


def families_of(pipeline: str) -> tuple[Family, ...]:
    """Returns the families that a diffusers pipeline class draws with; none for a class that is not supported."""
    return tuple(family for family in FAMILIES.values() if pipeline in PIPELINE_CLASSES and family.pipeline.name == pipeline)


__all__ = [
    "FAMILIES",
    "INNER",
    "MODEL_TYPES",
    "PIPELINE_CLASSES",
    "Blueprint",
    "Drawing",
    "Family",
    "FilePart",
    "Native",
    "PipelineClass",
    "Run",
    "Sign",
    "TextEncoder",
    "families_of",
    "pipeline_classes",
]
