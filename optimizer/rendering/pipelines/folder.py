"""Loading of diffusers folders, after checking that the pipeline is complete and of a known family."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.adapters.families import PIPELINE_CLASSES, PipelineClass
from optimizer.adapters.files.variants import variant_of
from optimizer.errors import BaseModelError, UsageError
from optimizer.rendering.loading import Quantize
from optimizer.rendering.pipelines.denoiser import load_denoiser
from optimizer.rendering.pipelines.model_files import COMPLETE, check_weights, missing_files
from optimizer.rendering.pipelines.quantisation import heavy_text_encoder, quantisation
from optimizer.text import first_sentence

_INDEX = "model_index.json"
# Never loaded: the safety checker blacks out images; the others are for image prompts.
_NEVER = ("safety_checker", "feature_extractor", "image_encoder")
_LISTED = 12
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")


def folder_class(folder: Path, denoiser: str | Path = "") -> PipelineClass:
    """Returns the pipeline class of a folder before it is loaded, with its own or a replacement denoiser.

    Raises:
        BaseModelError: the folder is not a complete pipeline of a known family.
    """
    return _check_folder(folder, bool(denoiser))[0]


def load_folder(
    folder: Path, options: dict[str, Any], *, denoiser: str | Path = "", quantize: Quantize = "none", compute: torch.device
) -> DiffusionPipeline:
    """Loads a pipeline from its folder, without its safety checker.

    Args:
        folder: pipeline folder with safetensors files, in full precision or of variant ``fp16``.
        options: arguments of ``from_pretrained``; ``dtype`` is the dtype of the weights.
        denoiser: replacement denoiser, as in ``load_denoiser``.
        quantize: quantisation format of the denoiser and T5.
        compute: device that will compute.

    Raises:
        BaseModelError: the pipeline is missing, incomplete or of an unknown family.
        UsageError: the quantisation format is not supported here.
    """
    record, parts, none = _check_folder(folder, bool(denoiser))
    try:
        texts, lacking = _text_encoders(folder, parts, options, quantize, compute)
        models = texts | {record.denoiser: load_denoiser(folder, record, denoiser, options, quantize, compute)}
        pipeline: DiffusionPipeline = getattr(diffusers, record.name).from_pretrained(
            folder, **models, **dict.fromkeys(none), **record.left_out, **options, variant=variant_of(folder / "vae")
        )
    except (UsageError, BaseModelError):
        raise
    except Exception as error:  # parsers of configurations, tokenizers and weights raise any exception on a damaged file
        raise BaseModelError(f"the pipeline cannot be loaded: {first_sentence(error)}", where=folder, remedy=COMPLETE) from error
    check_weights(pipeline, folder, lacking)
    return pipeline


def _check_folder(folder: Path, other: bool) -> tuple[PipelineClass, Mapping[str, str], Sequence[str]]:
    """Returns the pipeline's class, the class of each component, and the components set to null, such as T5.

    Everything that can be checked before reading the weights is checked here. The pipeline's denoiser may be missing if it will be
    replaced.
    """
    index = folder / _INDEX
    if not index.is_file():
        raise BaseModelError(f"no diffusers pipeline here ({_INDEX} is missing)", where=folder, remedy="give the folder of one")
    found = _read(index)
    kind = found.get("_class_name") if isinstance(found, dict) else None
    if not isinstance(kind, str):
        raise BaseModelError("cannot be read: it names no _class_name", where=index, remedy=COMPLETE)
    if kind not in PIPELINE_CLASSES:
        known = ", ".join(known.title for known in PIPELINE_CLASSES.values())
        raise BaseModelError(f"{kind} is not supported", where=folder, remedy=f"use a pipeline of {known}")
    record = PIPELINE_CLASSES[kind]
    named = {name: what[-1] for name, what in found.items() if isinstance(what, list) and what and name not in _NEVER}
    parts = {name: what for name, what in named.items() if what}
    none = [name for name in named if name not in parts]
    if other:
        parts.pop(record.denoiser, None)
    needed = (*([] if other else [record.denoiser]), *record.parts)
    if lacking := _lacking(folder, needed, parts):
        more = f" and {len(lacking) - _LISTED} more" if len(lacking) > _LISTED else ""
        raise BaseModelError(f"the pipeline is incomplete: {', '.join(lacking[:_LISTED])}{more} missing", where=folder, remedy=COMPLETE)
    for part in parts:
        for file in sorted((folder / part).glob("*.json")):
            _read(file)
    return record, parts, none


def _read(file: Path) -> Any:
    """Returns the content of a JSON file; raises BaseModelError if it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"cannot be read: {first_sentence(error)}", where=file, remedy=COMPLETE) from error


def _lacking(folder: Path, needed: Sequence[str], parts: Mapping[str, str]) -> list[str]:
    """Returns missing components, and missing files of the others; raises BaseModelError if weights are pickled."""
    lacking = [part for part in dict.fromkeys((*needed, *parts)) if part not in parts or not (folder / part).is_dir()]
    for part in (part for part in parts if part not in lacking):
        # Without a vocabulary, transformers' tokenizer still loads, but treats every text as empty.
        if part.startswith("tokenizer") and not any((folder / part / name).is_file() for name in _VOCABULARIES):
            lacking.append(f"{part}/vocab.json")
        elif part.startswith("text_encoder"):
            lacking += [f"{part}/{name}" for name in missing_files(folder / part, "model.safetensors")]
        elif part in ("vae", "unet", "transformer"):
            lacking += [f"{part}/{name}" for name in missing_files(folder / part, "diffusion_pytorch_model.safetensors")]
    return lacking


def _text_encoders(
    folder: Path, parts: Mapping[str, str], options: dict[str, Any], quantize: Quantize, compute: torch.device
) -> tuple[dict[str, Any], list[str]]:
    """Returns the text encoders, and the names of weights missing in their files.

    They are loaded separately, because only then transformers reports missing weights, which it initialises randomly.
    """
    texts, lacking = {}, list[str]()
    for part, kind in parts.items():
        if part.startswith("text_encoder"):
            place = folder / part
            few = quantisation(quantize, options["dtype"], compute, text=True) if heavy_text_encoder(part, kind) else {}
            model = getattr(transformers, kind)
            loaded: Any = model.from_pretrained(place, output_loading_info=True, variant=variant_of(place), **options, **few)
            texts[part], found = loaded
            lacking += [f"{part}.{key}" for key in sorted(found["missing_keys"])]
    return texts, lacking
