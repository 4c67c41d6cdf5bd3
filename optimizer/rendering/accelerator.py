"""Accelerator: a LoRA that everything is drawn with, beside the base and every candidate, and that no merge contains.

LCM, Lightning, Turbo, Hyper and DMD LoRAs let a base draw in few steps. Here one belongs to the loaded base: it is added to the weights
once, before anything is drawn. To quantised weights nothing can be added; there it stays in a branch beside them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.adapters import Adapter, fit_shapes, weight_shapes
from optimizer.adapters.families import PipelineClass
from optimizer.errors import BaseModelError
from optimizer.rendering.candidates.in_place import base_weights, with_change
from optimizer.rendering.pipeline_class import check_family, models_of
from optimizer.rendering.pipelines.quantisation import quantised_parts


def check_accelerator(record: PipelineClass, accelerator: Adapter) -> None:
    """Raises BaseModelError if an accelerator is for another family of bases than a pipeline class draws with."""
    try:
        check_family(record, [accelerator])
    except BaseModelError as error:
        raise _unfit(accelerator, error) from error


def add_accelerator(pipeline: DiffusionPipeline, accelerator: Adapter, device: torch.device) -> Adapter | None:
    """Adds an accelerator to the weights of a loaded pipeline for good, as far as they are not quantised.

    ΔW is added in fp32 and rounded once to the weight's dtype.

    Args:
        pipeline: loaded pipeline.
        accelerator: accelerator, at the strength that it is to have.
        device: device that computes the sums, which are stored where the weights are.

    Returns:
        The part of the accelerator that is for quantised components, in the shapes of their weights; None if there is none.

    Raises:
        BaseModelError: a module of the accelerator is missing in the base, or has another shape; nothing was changed.
    """
    try:
        modules = fit_shapes(accelerator, weight_shapes(models_of(pipeline))).modules
    except BaseModelError as error:
        raise _unfit(accelerator, error) from error
    packed, weights = tuple(f"{part}." for part in quantised_parts(pipeline)), base_weights(pipeline)
    for path, factors in modules.items():
        if not path.startswith(packed):
            weights[path].data = with_change(weights[path].data, factors, device)
    rest = {path: factors for path, factors in modules.items() if path.startswith(packed)}
    return replace(accelerator, modules=rest) if rest else None


def _unfit(accelerator: Adapter, error: BaseModelError) -> BaseModelError:
    return BaseModelError(error.problem, where=f"--with {accelerator.name}", remedy="give an accelerator that is made for the base model")
