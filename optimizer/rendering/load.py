"""Loading a base model: a complete pipeline of a known family, or one clear error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import diffusers.utils.logging
import torch
import transformers
import transformers.utils.logging
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from optimizer.errors import BaseModelError, UsageError
from optimizer.rendering.denoiser import load_denoiser
from optimizer.rendering.families import FAMILIES, Family, models_of
from optimizer.rendering.files import first_sentence, variant_of
from optimizer.rendering.loading import Quantize
from optimizer.rendering.quantised import heavy_text_encoder, quantisation

_INDEX = "model_index.json"
_COMPLETE = "fetch the whole folder again"
# The safety checker turns pictures black, and draws nothing; the others are for pictures as prompts.
_NEVER = ("safety_checker", "feature_extractor", "image_encoder")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")


def load_pipeline(
    base: str | Path,
    *,
    device: str,
    dtype: torch.dtype,
    vae: str | Path = "",
    denoiser: str | Path = "",
    quantize: Quantize = "none",
    compute: torch.device | None = None,
) -> DiffusionPipeline:
    """Load a diffusers pipeline directory, without its safety checker, which would turn pictures black.

    Args:
        base: the directory; its weights are safetensors files, of full precision or of variant ``fp16``.
        device: torch device.
        dtype: of the weights in memory.
        vae: the folder of another autoencoder, or of a pipeline that has it; the base's own where not given.
        denoiser: another U-Net or transformer, see ``load_denoiser``; the base's own where not given.
        quantize: what the denoiser and T5 are quantised to.
        compute: where will be computed, where that is another device than the weights are loaded to.

    Raises:
        BaseModelError: nothing there, not a pipeline of a known family, or not all of one.
        UsageError: the device is not there, or cannot compute with what is quantised so.
    """
    folder = Path(base)
    kind, parts, none = _checked(folder, bool(denoiser))
    check_device(device)
    compute = compute or torch.device(device)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    options: dict[str, Any] = {"dtype": dtype, "local_files_only": True, "use_safetensors": True}
    try:
        texts, lacking = _text_encoders(folder, parts, options, quantize, compute)
        models = texts | {FAMILIES[kind].denoiser: load_denoiser(folder, kind, denoiser, options, quantize, compute)}
        pipeline: DiffusionPipeline = getattr(diffusers, kind).from_pretrained(
            folder, **models, **dict.fromkeys(none), **_left_out(kind), **options, variant=variant_of(folder / "vae")
        )
    except (UsageError, BaseModelError):
        raise
    except Exception as error:  # whatever the parsers of configurations, tokenizers and weights raise on a damaged file
        raise BaseModelError(f"the pipeline cannot be loaded: {first_sentence(error)}", where=folder, remedy=_COMPLETE) from error
    if lacking := [*lacking, *_unloaded(pipeline)]:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise BaseModelError(f"weights are missing: {lacking[0]}{more}", where=folder, remedy=_COMPLETE)
    if vae:
        pipeline.register_modules(vae=_vae(Path(vae), pipeline, options))
    return pipeline.to(device)


def family_at(base: str | Path, denoiser: str | Path = "") -> Family:
    """The family of a base, before it is loaded, with its own or another denoiser; raises BaseModelError where it has none."""
    return FAMILIES[_checked(Path(base), bool(denoiser))[0]]


def _vae(folder: Path, pipeline: DiffusionPipeline, options: dict[str, Any]) -> torch.nn.Module:
    """Another autoencoder for a pipeline; raises BaseModelError where it cannot be read, or has latents of another shape."""
    place = folder / "vae" if (folder / _INDEX).is_file() else folder
    if not (place / "config.json").is_file():
        raise BaseModelError("no autoencoder here (config.json is missing)", where=place, remedy="give the folder of one to --vae")
    try:
        found = diffusers.AutoencoderKL.from_pretrained(place, variant=variant_of(place), **options)
    except Exception as error:
        raise BaseModelError(f"the autoencoder cannot be loaded: {first_sentence(error)}", where=place, remedy=_COMPLETE) from error
    own = pipeline.components["vae"]
    if _latents(found) != _latents(own):
        problem = f"its latents are of another shape than the base's ({_latents(found)} instead of {_latents(own)})"
        raise BaseModelError(problem, where=place, remedy="give one of the base's family to --vae")
    vae: torch.nn.Module = found
    return vae


def _latents(vae: Any) -> str:
    """Channels of a latent, and how many pixels one of its entries is wide."""
    return f"{vae.config.latent_channels} channels at 1/{2 ** (len(vae.config.block_out_channels) - 1)}"


def _checked(folder: Path, other: bool) -> tuple[str, Mapping[str, str], Sequence[str]]:
    """The pipeline's class, the class of each of its parts, and the parts that it goes without, such as T5.

    Where another denoiser will be used, the pipeline's own may be missing. By then everything is checked that can be told before
    gigabytes are read.
    """
    index = folder / _INDEX
    if folder.is_file():
        remedy = "convert it once: StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER), then give the folder"
        raise BaseModelError("this is a single file, not the folder of a diffusers pipeline", where=folder, remedy=remedy)
    if not index.is_file():
        raise BaseModelError(f"no diffusers pipeline here ({_INDEX} is missing)", where=folder, remedy="give the folder of one")
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
        kind = found["_class_name"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BaseModelError(f"cannot be read: {first_sentence(error)}", where=index, remedy=_COMPLETE) from error
    if kind not in FAMILIES:
        known = ", ".join(family.name for family in FAMILIES.values())
        raise BaseModelError(f"{kind} is not supported", where=folder, remedy=f"use a pipeline of {known}")
    named = {name: what[-1] for name, what in found.items() if isinstance(what, list) and what and name not in _NEVER}
    parts = {name: what for name, what in named.items() if what}
    none = [name for name in named if name not in parts]
    if other:
        parts.pop(FAMILIES[kind].denoiser, None)
    needed = (*([] if other else [FAMILIES[kind].denoiser]), *FAMILIES[kind].parts)
    lacking = [part for part in dict.fromkeys((*needed, *parts)) if part not in parts or not (folder / part).is_dir()]
    # Without its vocabulary, transformers' tokenizer loads all the same and reads every text as empty.
    for part in parts:
        if part.startswith("tokenizer") and part not in lacking and not any((folder / part / name).is_file() for name in _VOCABULARIES):
            lacking.append(f"{part}/vocab.json")
    if lacking:
        raise BaseModelError(f"the pipeline is incomplete: {', '.join(lacking)} missing", where=folder, remedy=_COMPLETE)
    return kind, parts, none


def _text_encoders(
    folder: Path, parts: Mapping[str, str], options: dict[str, Any], quantize: Quantize, compute: torch.device
) -> tuple[dict[str, Any], list[str]]:
    """The text encoders, and the weights that their files lack.

    They are loaded on their own, because only so transformers tells what the file lacks; it makes up random weights in their place.
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


def _left_out(kind: str) -> dict[str, Any]:
    """Arguments that keep out what is not for drawing."""
    if kind == "StableDiffusionPipeline":
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return {"add_watermarker": False} if kind == "StableDiffusionXLPipeline" else {}


def check_device(device: str) -> None:
    """Raise UsageError unless the device is there."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch that was built without CUDA
        raise UsageError(f"the device {device!r} cannot be used: {first_sentence(error)}", remedy="use cpu") from error


def _unloaded(pipeline: DiffusionPipeline) -> list[str]:
    """Weights that diffusers found nothing for: it leaves them without storage."""
    return [f"{part}.{name}" for part, model in models_of(pipeline).items() for name, weight in model.named_parameters() if weight.is_meta]
