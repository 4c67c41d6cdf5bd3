"""The pipeline class of a base: its record, the models and default sampling settings of a loaded one, and what it supports."""

from __future__ import annotations

from collections.abc import Iterable

from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from optimizer.adapters import Adapter
from optimizer.adapters.families import FAMILIES, PIPELINE_CLASSES, Drawing, PipelineClass, families_of
from optimizer.errors import BaseModelError, UsageError
from optimizer.rendering.settings import RenderSettings


def pipeline_class_of(pipeline: DiffusionPipeline) -> PipelineClass:
    """Returns the record of the class of a loaded pipeline."""
    return PIPELINE_CLASSES[type(pipeline).__name__]


def models_of(pipeline: DiffusionPipeline) -> dict[str, nn.Module]:
    """Returns the components of a pipeline that have weights, by name."""
    return {part: model for part, model in pipeline.components.items() if isinstance(model, nn.Module)}


def drawing_of(pipeline: DiffusionPipeline) -> Drawing:
    """Returns the default sampling settings of a loaded pipeline.

    FLUX.1 schnell is recognised by its missing guidance input, and the turbo models of Stable Diffusion by ``trailing`` timestep spacing.
    Models trained to zero terminal SNR also use ``trailing`` spacing but need many steps; they are recognised by a rescaled noise schedule
    or by velocity prediction.
    """
    record, parts = pipeline_class_of(pipeline), pipeline.components
    if record.packed:
        return record.drawing if parts[record.denoiser].config.guidance_embeds else record.distilled
    schedule = parts["scheduler"].config
    whole = schedule.get("rescale_betas_zero_snr") or schedule.get("prediction_type") == "v_prediction"
    return record.distilled if schedule.get("timestep_spacing") == "trailing" and not whole else record.drawing


def check_family(record: PipelineClass, adapters: Iterable[Adapter]) -> None:
    """Raises BaseModelError if an adapter is for a family of bases that the pipeline class does not draw with."""
    known = ("unknown", *(family.name for family in families_of(record.name)))
    for adapter in adapters:
        if adapter.base not in known:
            problem = f"is for {FAMILIES[adapter.base].title}, the base model is of {record.title}"
            raise BaseModelError(problem, where=adapter.name, remedy="choose sources and a base of one family")


def check_settings(record: PipelineClass, settings: RenderSettings) -> None:
    """Raises UsageError if a pipeline class does not support the settings, as far as known before a base is loaded."""
    if settings.negative and not record.negates:
        raise UsageError(f"{record.title} takes no negative prompt", where="--negative", remedy="leave it out")
    if settings.clip_skip is None:
        return
    if not record.clip_layer:
        raise UsageError(f"{record.title} has no choice of CLIP's layers", where="--clip-skip", remedy="leave it out")
    if settings.clip_skip < record.clip_layer:
        problem = f"{record.title} reads CLIP's layer {record.clip_layer} from the end, or an earlier one"
        raise UsageError(problem, where="--clip-skip", remedy=f"give {record.clip_layer} or more")
