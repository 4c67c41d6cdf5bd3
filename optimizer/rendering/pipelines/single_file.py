"""Loading of single-file checkpoints, as used by A1111 and ComfyUI: all models of a pipeline in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from optimizer.adapters.families import MODEL_TYPES, PIPELINE_CLASSES, Blueprint, PipelineClass
from optimizer.checkpoints.header import CheckpointHeader, read_checkpoint_header
from optimizer.checkpoints.kinds import SUPPORTED, checkpoint_kind
from optimizer.checkpoints.prediction_type import NOISE, Noise, marked_noise, scheduler_with, stated_noise
from optimizer.errors import BaseModelError, UsageError
from optimizer.rendering.loading import Quantize
from optimizer.rendering.pipelines.clip_tokenizer import clip_tokenizer
from optimizer.rendering.pipelines.denoiser import load_denoiser, read_denoiser
from optimizer.rendering.pipelines.model_files import check_weights
from optimizer.text import first_sentence

# Key prefixes of the components of a pipeline in such files.
_PARTS = {
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoders.clip_l."),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoders.clip_g."),
    "t5": ("text_encoders.t5xxl.",),
}


def checkpoint_class(file: Path, layout: str | Path = "") -> PipelineClass:
    """Returns the pipeline class of a single file, from the names and shapes of its tensors, or that of a given layout.

    Raises:
        BaseModelError: the file or layout is of no known family.
    """
    return _layout_class(Path(layout)) if layout else MODEL_TYPES[checkpoint_kind(file, read_checkpoint_header(file))].pipeline


def load_checkpoint(
    file: Path,
    options: dict[str, Any],
    *,
    layout: str | Path = "",
    denoiser: str | Path = "",
    quantize: Quantize = "none",
    compute: torch.device,
) -> DiffusionPipeline:
    """Loads a pipeline from a single file.

    Args:
        file: safetensors file in the layout of the model's original code.
        options: loading arguments of diffusers; ``dtype`` is the dtype of the weights.
        layout: diffusers folder of this model with configurations and tokenizers, weights not needed; empty uses the published
            configuration of a known model.
        denoiser: replacement denoiser, as in ``load_denoiser``.
        quantize: quantisation format of the denoiser.
        compute: device that will compute.

    Raises:
        BaseModelError: the file is not a checkpoint of a known family, or lacks a required component.
    """
    header = read_checkpoint_header(file)
    if layout:
        noise = marked_noise(header)  # the layout provides everything else
        folder_of: AbstractContextManager[Path] = nullcontext(Path(layout))
    else:
        kind = checkpoint_kind(file, header)
        noise = stated_noise(file, header, kind)
        folder_of = _written_layout(file, MODEL_TYPES[kind].pipeline, _blueprint(noise, kind), header.tensors)
    with folder_of as folder:
        pipeline: Any = _load(file, folder, header, options, denoiser, quantize, compute)
    pipeline.scheduler = scheduler_with(pipeline.scheduler, noise)
    found: DiffusionPipeline = pipeline
    return found


def checkpoint_remarks(file: Path, layout: str | Path = "") -> list[str]:
    """Returns remarks for users about a single file, one line each: missing components and an unusual prediction type or schedule."""
    header, record = read_checkpoint_header(file), checkpoint_class(file, layout)
    kind = "" if layout else checkpoint_kind(file, header)
    lines = _noise_remarks(stated_noise(file, header, kind) if kind else marked_noise(header), kind) if record.denoiser == "unet" else []
    if record.t5_tokenizer in record.optional and "t5" not in _held(header.tensors):
        lines.append("holds no T5: CLIP alone reads the prompts")
    return [f"{file.name} {line}" for line in lines]


def _noise_remarks(noise: Noise, kind: str) -> list[str]:
    usual = noise.prediction in ("", NOISE) and kind != "v2"
    predicts = "" if usual else "predicts noise" if noise.prediction == NOISE else "predicts velocities"
    known = " and ".join(part for part in (predicts, "was trained down to no signal" if noise.rescaled else "") if part)
    return [f"{known}, by {noise.reason}"] if known else []


def _load(
    file: Path,
    folder: Path,
    header: CheckpointHeader,
    options: dict[str, Any],
    denoiser: str | Path,
    quantize: Quantize,
    compute: torch.device,
) -> DiffusionPipeline:
    record = _layout_class(folder)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    none = {part: None for part, what in index.items() if isinstance(what, list) and not what[-1]}
    if "t5" not in _held(header.tensors):
        none |= dict.fromkeys(record.optional)
    try:
        model = (
            load_denoiser(folder, record, denoiser, options, quantize, compute)
            if denoiser
            else read_denoiser(file, folder / record.denoiser, record, options, quantize, compute)
        )
        found: DiffusionPipeline = getattr(diffusers, record.name).from_single_file(
            str(file), config=str(folder), local_files_only=True, torch_dtype=options["dtype"], **{record.denoiser: model}, **none
        )
    except (UsageError, BaseModelError):
        raise
    except Exception as error:  # parsers of configurations, tokenizers and weights raise any exception on a damaged file
        remedy = "fetch the file again; one of an unusual layout needs --base-config"
        raise BaseModelError(f"the checkpoint cannot be loaded: {first_sentence(error)}", where=file, remedy=remedy) from error
    check_weights(found, file, [])
    return found


def _blueprint(noise: Noise, kind: str) -> Blueprint:
    return MODEL_TYPES[kind].blueprints["v2-base" if kind == "v2" and noise.prediction == NOISE else kind]


def _layout_class(folder: Path) -> PipelineClass:
    try:
        kind: str = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        problem = f"no diffusers pipeline here (model_index.json cannot be read: {first_sentence(error)})"
        raise BaseModelError(problem, where=folder, remedy="give a diffusers folder of the model to --base-config") from error
    if kind not in PIPELINE_CLASSES:
        raise BaseModelError(f"{kind} is not supported", where=folder, remedy=f"use a pipeline of {SUPPORTED}")
    return PIPELINE_CLASSES[kind]


@contextmanager
def _written_layout(file: Path, record: PipelineClass, blueprint: Blueprint, tensors: Mapping[str, Tensor]) -> Iterator[Path]:
    """Context with a temporary folder with the configurations and tokenizers of a known model, as ``from_single_file`` requires."""
    texts = _texts(file, record, blueprint, tensors)
    denoiser, vae, scheduler = record.denoiser, "AutoencoderKL", blueprint.scheduler[0]
    absent = {name: [None, None] if value is None else value for name, value in record.left_out.items()}
    index: dict[str, Any] = {"_class_name": record.name, **blueprint.options, **absent}
    index |= {denoiser: ["diffusers", record.denoiser_class], "vae": ["diffusers", vae], "scheduler": ["diffusers", scheduler]}
    with TemporaryDirectory() as name:
        folder = Path(name)
        with torch.device("meta"):  # only to save complete configurations, defaults included
            getattr(diffusers, record.denoiser_class)(**blueprint.denoiser).save_config(folder / denoiser)
            diffusers.AutoencoderKL(**blueprint.vae).save_config(folder / "vae")
        getattr(diffusers, scheduler)(**blueprint.scheduler[1]).save_config(folder / "scheduler")
        for number, text in enumerate(texts):
            index |= _write_text_layout(folder, f"_{number + 1}" if number else "", text)
        (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
        yield folder


def _write_text_layout(folder: Path, end: str, text: tuple[str, Mapping[str, Any]] | None) -> dict[str, list[str | None]]:
    """Writes configuration and tokenizer of a CLIP text encoder, if the file contains it; returns its entries of the index."""
    if text is None:
        return {f"text_encoder{end}": [None, None], f"tokenizer{end}": [None, None]}
    kind, config = text
    transformers.CLIPTextConfig(**config).save_pretrained(folder / f"text_encoder{end}")
    clip_tokenizer("!" if config["hidden_size"] >= 1024 else "<|endoftext|>").save_pretrained(folder / f"tokenizer{end}")
    return {f"text_encoder{end}": ["transformers", kind], f"tokenizer{end}": ["transformers", "CLIPTokenizer"]}


def _texts(
    file: Path, record: PipelineClass, blueprint: Blueprint, tensors: Mapping[str, Tensor]
) -> list[tuple[str, Mapping[str, Any]] | None]:
    """Returns the text encoders of the file, None for T5 in SD 3 files without it; raises BaseModelError if a component is missing."""
    held = _held(tensors)
    kinds = ["t5" if name == "T5EncoderModel" else f"text_encoder{f'_{i + 1}' if i else ''}" for i, (name, _) in enumerate(blueprint.texts)]
    optional = record.t5_tokenizer in record.optional
    missing = [part for part in ("vae", *kinds) if part not in held and not (part == "t5" and optional)]
    if missing:
        names = ", ".join("T5" if part == "t5" else part for part in missing)
        remedy = "give the diffusers folder of the whole model to --base, and this file to --denoiser"
        raise BaseModelError(f"the file lacks {names}", where=file, remedy=remedy)
    if "t5" in held and "t5" in kinds:
        remedy = "give a diffusers folder of the same model, which has it, with --base-config"
        raise BaseModelError("T5's tokenizer is in no such file", where=file, remedy=remedy)
    return [text if kind in held else None for kind, text in zip(kinds, blueprint.texts, strict=True)]


def _held(tensors: Mapping[str, Tensor]) -> set[str]:
    """Returns the components other than the denoiser that a file contains."""
    return {part for part, starts in _PARTS.items() if any(name.startswith(starts) for name in tensors)}
