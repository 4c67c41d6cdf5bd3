"""Loading a base model: a complete Stable Diffusion pipeline, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from transformers import CLIPTextModel

from optimizer.errors import BaseModelError, UsageError

_INDEX = "model_index.json"
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_COMPLETE = "fetch the whole folder again"


def load_pipeline(base: str | Path, *, device: str, dtype: torch.dtype) -> StableDiffusionPipeline:
    """Load a diffusers pipeline directory, without its safety checker, which would turn pictures black.

    Args:
        base: the directory; its weights are safetensors files, of full precision or of variant ``fp16``.
        device: torch device.
        dtype: of the weights in memory.

    Raises:
        BaseModelError: nothing there, not a Stable Diffusion 1.x/2.x pipeline, or not all of one.
        UsageError: the device is not there.
    """
    folder = Path(base)
    _check_folder(folder)
    _check_device(device)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    options: dict[str, Any] = {"dtype": dtype, "local_files_only": True, "use_safetensors": True, "variant": _variant(folder)}
    try:
        # On its own, because only so transformers tells which weights the file lacks; it makes up random ones in their place.
        loaded: Any = CLIPTextModel.from_pretrained(folder / "text_encoder", output_loading_info=True, **options)
        text_encoder, found = loaded
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, text_encoder=text_encoder, safety_checker=None, feature_extractor=None, requires_safety_checker=False, **options
        )
    except Exception as error:  # whatever the parsers of configurations, tokenizers and weights raise on a damaged file
        raise BaseModelError(f"the pipeline cannot be loaded: {_line(error)}", where=folder, remedy=_COMPLETE) from error
    if lacking := [*(f"text_encoder.{key}" for key in sorted(found["missing_keys"])), *_unloaded(pipeline)]:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise BaseModelError(f"weights are missing: {lacking[0]}{more}", where=folder, remedy=_COMPLETE)
    return pipeline.to(device)


def _check_folder(folder: Path) -> None:
    """Everything that can be told before gigabytes are read."""
    index = folder / _INDEX
    if folder.is_file():
        remedy = "convert it once: StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER), then give the folder"
        raise BaseModelError("this is a single file, not the folder of a diffusers pipeline", where=folder, remedy=remedy)
    if not index.is_file():
        raise BaseModelError(f"no diffusers pipeline here ({_INDEX} is missing)", where=folder, remedy="give the folder of one")
    try:
        kind = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BaseModelError(f"cannot be read: {_line(error)}", where=index, remedy=_COMPLETE) from error
    if kind != StableDiffusionPipeline.__name__:
        raise BaseModelError(f"{kind} is not supported", where=folder, remedy="use a StableDiffusionPipeline (SD 1.x or 2.x)")
    lacking = [part for part in _PARTS if not (folder / part).is_dir()]
    # Without its vocabulary, transformers' tokenizer loads all the same and reads every text as empty.
    if "tokenizer" not in lacking and not any((folder / "tokenizer" / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        lacking.append("tokenizer/vocab.json")
    if lacking:
        raise BaseModelError(f"the pipeline is incomplete: {', '.join(lacking)} missing", where=folder, remedy=_COMPLETE)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch that was built without CUDA
        raise UsageError(f"the device {device!r} cannot be used: {_line(error)}", remedy="use cpu") from error


def _variant(folder: Path) -> str | None:
    """``fp16`` where only those weights are there."""
    names = {path.name for path in (folder / "unet").glob("*.safetensors")}
    return "fp16" if names and all(".fp16" in name for name in names) else None


def _unloaded(pipeline: StableDiffusionPipeline) -> list[str]:
    """Weights that diffusers found nothing for: it leaves them without storage."""
    return [f"{part}.{name}" for part in ("unet", "vae") for name, weight in getattr(pipeline, part).named_parameters() if weight.is_meta]


def _line(error: Exception) -> str:
    """The first sentence of a library's message."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__
