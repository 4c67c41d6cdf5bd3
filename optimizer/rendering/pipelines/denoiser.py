"""Loading of a denoiser: the base's own, or a replacement from a folder, a single file, or a GGUF file with quantised weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import torch

from optimizer.adapters.families import MODEL_TYPES, PipelineClass
from optimizer.adapters.files.dtypes import EIGHT_BITS, FLOATS
from optimizer.adapters.files.variants import variant_of
from optimizer.checkpoints.header import read_checkpoint_header
from optimizer.errors import BaseModelError, UsageError
from optimizer.rendering.loading import Quantize
from optimizer.rendering.pipelines.model_files import check_class, check_loaded
from optimizer.rendering.pipelines.quantisation import quantisation
from optimizer.text import first_sentence


def load_denoiser(
    folder: Path, record: PipelineClass, other: str | Path, options: dict[str, Any], quantize: Quantize, compute: torch.device
) -> torch.nn.Module:
    """Returns the U-Net or transformer of a pipeline.

    Args:
        folder: folder of the pipeline.
        record: class of the pipeline.
        other: diffusers folder, safetensors file or GGUF file of a replacement; empty loads the pipeline's own denoiser.
        options: arguments of ``from_pretrained``; ``dtype`` is the compute dtype.
        quantize: quantisation format of the weights; a denoiser that is already quantised is kept as it is.
        compute: device that will compute.

    Raises:
        BaseModelError: the denoiser is missing or cannot be loaded.
        UsageError: a package needed to read it is not installed.
    """
    part = record.denoiser
    if not other:
        return read_denoiser(folder / part, folder / part, record, options, quantize, compute)
    place = _denoiser_path(Path(other), record)
    try:
        found = read_denoiser(place, folder / part, record, options, quantize, compute)
    except UsageError:
        raise
    except Exception as error:  # parsers of configurations and weights raise any exception on a damaged file
        remedy = f"give a {part} of {record.title} to --denoiser, and fetch it again if it should be one"
        raise BaseModelError(f"the denoiser cannot be loaded: {first_sentence(error)}", where=place, remedy=remedy) from error
    check_loaded(found, place)
    return found


def read_denoiser(
    place: str | Path, own: Path, record: PipelineClass, options: dict[str, Any], quantize: Quantize, compute: torch.device
) -> torch.nn.Module:
    """Returns the denoiser of a folder or file.

    The configuration in ``own``, the folder of the pipeline's denoiser, defines the architecture of a single file if it exists. Exceptions
    of the libraries are not converted.
    """
    place, model = Path(place), getattr(diffusers, record.denoiser_class)
    if place.is_dir():
        few = {} if _quantised_already(place) else quantisation(quantize, options["dtype"], compute)
        found = model.from_pretrained(place, variant=variant_of(place), **options, **few)
    else:
        few = _of_gguf(place, options["dtype"]) if place.suffix == ".gguf" else quantisation(quantize, options["dtype"], compute)
        config = {"config": str(own.parent), "subfolder": own.name} if (own / "config.json").is_file() else {}
        found = model.from_single_file(str(place), local_files_only=True, torch_dtype=options["dtype"], **config, **few)
    denoiser: torch.nn.Module = found
    return denoiser


def _denoiser_path(other: Path, record: PipelineClass) -> Path:
    """Returns the location of the weights: a file or a model's folder, which may be inside a pipeline.

    Raises:
        BaseModelError: nothing is found, or the model is of another class.
    """
    part = record.denoiser
    if other.is_dir():
        place = other if (other / "config.json").is_file() else other / part
        if (place / "config.json").is_file():
            check_class(place, record.denoiser_class, f"give a {part} of {record.title} to --denoiser")
            return place
        raise BaseModelError(f"no {part} here (config.json is missing)", where=other, remedy="give the folder of one to --denoiser")
    if not other.is_file():
        raise BaseModelError("does not exist", where=other, remedy="give a folder, a .safetensors or a .gguf file to --denoiser")
    if other.suffix == ".gguf":
        return other
    header = read_checkpoint_header(other, (*FLOATS, *EIGHT_BITS))
    stranger = header.model != "v1" and header.model in MODEL_TYPES and MODEL_TYPES[header.model].pipeline != record
    if what := header.mistaken or (f"of another model ({header.model})" if stranger else ""):
        raise BaseModelError(f"this file is {what}", where=other, remedy=f"give a {part} of {record.title} to --denoiser")
    return other


def _quantised_already(place: Path) -> bool:
    return "quantization_config" in (place / "config.json").read_text(encoding="utf-8")


def _of_gguf(place: Path, dtype: torch.dtype) -> dict[str, Any]:
    if find_spec("gguf") is None:
        raise UsageError("gguf is not installed, which reads this file", where=place, remedy="pip install gguf")
    return {"quantization_config": diffusers.GGUFQuantizationConfig(compute_dtype=dtype)}
