"""Single files: checkpoints as A1111 and ComfyUI keep them, with all models of a pipeline in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
import transformers
from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES, infer_diffusers_model_type
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from safetensors import SafetensorError, safe_open
from torch import Tensor

from optimizer.errors import BaseModelError, UsageError
from optimizer.rendering.blueprints import BLUEPRINTS, Blueprint
from optimizer.rendering.denoiser import read_denoiser
from optimizer.rendering.families import FAMILIES, Family
from optimizer.rendering.files import first_sentence, missing_weights
from optimizer.rendering.loading import Quantize
from optimizer.rendering.vocabulary import clip_tokenizer

_SUPPORTED = "SD 1.x, SD 2.x, SDXL, SD 3, SD 3.5 or FLUX.1"
_WEIGHTS = ("F16", "BF16", "F32", "F64")
# What the parts of a pipeline are called in such files.
_PARTS = {
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoders.clip_l."),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoders.clip_g."),
    "t5": ("text_encoders.t5xxl.",),
}


def checkpoint_family(file: Path, layout: str | Path = "") -> Family:
    """The family of a single file, by the names and shapes of its tensors, or that of a layout that is given; raises BaseModelError."""
    return FAMILIES[_layout_class(Path(layout)) if layout else BLUEPRINTS[_kind(file, _shapes(file))].pipeline]


def load_checkpoint(
    file: Path,
    options: dict[str, Any],
    *,
    layout: str | Path = "",
    denoiser: str | Path = "",
    quantize: Quantize = "none",
    compute: torch.device,
) -> DiffusionPipeline:
    """Load a pipeline from a single file.

    Args:
        file: safetensors, laid out as the original code of the model has it.
        options: of diffusers' loading; ``dtype`` is that of the weights.
        layout: a diffusers folder of the same model, with configurations and tokenizers; weights are not needed there. Where none is
            given, known models are laid out as they were published.
        denoiser: another denoiser, see ``load_denoiser``.
        quantize: what the denoiser is quantised to.
        compute: where will be computed.

    Raises:
        BaseModelError: not a checkpoint, of no known family, or without a part that it needs.
    """
    tensors = _shapes(file)
    if layout:
        kind = _layout_class(Path(layout))
        return _loaded(file, Path(layout), kind, options, denoiser, quantize, compute)
    blueprint = BLUEPRINTS[_kind(file, tensors)]
    with _drawn_up(file, blueprint, tensors) as folder:
        return _loaded(file, folder, blueprint.pipeline, options, denoiser, quantize, compute)


def _loaded(
    file: Path, folder: Path, kind: str, options: dict[str, Any], denoiser: str | Path, quantize: Quantize, compute: torch.device
) -> DiffusionPipeline:
    family = FAMILIES[kind]
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    none = {part: None for part, what in index.items() if isinstance(what, list) and not what[-1]}
    try:
        model = read_denoiser(denoiser or file, folder / family.denoiser, kind, options, quantize, compute)
        found: DiffusionPipeline = getattr(diffusers, kind).from_single_file(
            str(file), config=str(folder), local_files_only=True, torch_dtype=options["dtype"], **{family.denoiser: model}, **none
        )
    except (UsageError, BaseModelError):
        raise
    except Exception as error:  # whatever the parsers of configurations, tokenizers and weights raise on a damaged file
        remedy = "fetch the file again; one of an unusual layout needs --base-config"
        raise BaseModelError(f"the checkpoint cannot be loaded: {first_sentence(error)}", where=file, remedy=remedy) from error
    missing_weights(found, file, [])
    return found


def _shapes(file: Path) -> dict[str, Tensor]:
    """Its tensors without their numbers; raises BaseModelError where it is no complete file of weights."""
    if file.suffix != ".safetensors":
        remedy = "use a .safetensors file; others can run code when they are opened"
        raise BaseModelError(f"{file.suffix or 'a file without an ending'} is not read", where=file, remedy=remedy)
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            kinds = {name: part.get_dtype() for name, part in slices.items()}
            found = {name: torch.empty(part.get_shape(), device="meta") for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        problem = f"cannot be read, or was not downloaded to its end ({first_sentence(error)})"
        raise BaseModelError(problem, where=file, remedy="fetch the file again") from error
    odd = next((name for name, kind in kinds.items() if kind not in _WEIGHTS and not _counts(name)), None)
    if odd is not None:
        remedy = "use the fp16, bf16 or fp32 version of the model, or a GGUF version of its denoiser with --denoiser"
        raise BaseModelError(f"{odd} is stored as {kinds[odd]}, which is not read", where=file, remedy=remedy)
    return found


def _counts(name: str) -> bool:
    """Tensors that are no weights: positions, and the marks of models that predict velocities."""
    return name.endswith(("position_ids", "logit_scale", "num_batches_tracked", "v_pred", "ztsnr"))


def _kind(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """What diffusers calls the kind of file; raises BaseModelError where it is none that is drawn with."""
    kind: str = infer_diffusers_model_type(dict(tensors))
    known = kind in BLUEPRINTS and (kind != "v1" or CHECKPOINT_KEY_NAMES["v1"] in tensors)
    if known:
        return kind
    what = _other(tensors) or ("of an unknown model" if kind == "v1" else f"of a model that is not supported ({kind})")
    remedy = f"give a checkpoint of {_SUPPORTED}, or a diffusers folder of the same model with --base-config"
    raise BaseModelError(f"this file is {what}", where=file, remedy=remedy)


def _other(tensors: Mapping[str, Tensor]) -> str:
    """What a file is that people take for a checkpoint."""
    if any("lora" in name.lower() or "hada_" in name or "lokr_" in name for name in tensors):
        return "a LoRA, not a base model"
    if tensors and all(name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")) for name in tensors):
        return "an autoencoder alone, which is for --vae"
    return ""


def _layout_class(folder: Path) -> str:
    try:
        kind: str = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        problem = f"no diffusers pipeline here (model_index.json cannot be read: {first_sentence(error)})"
        raise BaseModelError(problem, where=folder, remedy="give a diffusers folder of the model to --base-config") from error
    if kind not in FAMILIES:
        raise BaseModelError(f"{kind} is not supported", where=folder, remedy=f"use a pipeline of {_SUPPORTED}")
    return kind


@contextmanager
def _drawn_up(file: Path, blueprint: Blueprint, tensors: Mapping[str, Tensor]) -> Iterator[Path]:
    """A folder with the configurations and tokenizers of a known model, as ``from_single_file`` wants one."""
    texts = _texts(file, blueprint, tensors)
    denoiser, vae, scheduler = FAMILIES[blueprint.pipeline].denoiser, "AutoencoderKL", blueprint.scheduler[0]
    index: dict[str, Any] = {"_class_name": blueprint.pipeline, **blueprint.options, **_ABSENT.get(blueprint.pipeline, {})}
    index |= {denoiser: ["diffusers", blueprint.denoiser[0]], "vae": ["diffusers", vae], "scheduler": ["diffusers", scheduler]}
    with TemporaryDirectory() as name:
        folder = Path(name)
        with torch.device("meta"):  # for their configurations, complete with the defaults
            getattr(diffusers, blueprint.denoiser[0])(**blueprint.denoiser[1]).save_config(folder / denoiser)
            diffusers.AutoencoderKL(**blueprint.vae).save_config(folder / "vae")
        getattr(diffusers, scheduler)(**{**blueprint.scheduler[1], **_marked(tensors)}).save_config(folder / "scheduler")
        for number, text in enumerate(texts):
            index |= _text_drawn_up(folder, f"_{number + 1}" if number else "", text)
        (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
        yield folder


def _text_drawn_up(folder: Path, end: str, text: tuple[str, Mapping[str, Any]] | None) -> dict[str, list[str | None]]:
    """Write configuration and tokenizer of one of CLIP's text encoders, if the file holds it; returns its lines of the index."""
    if text is None:
        return {f"text_encoder{end}": [None, None], f"tokenizer{end}": [None, None]}
    kind, config = text
    transformers.CLIPTextConfig(**config).save_pretrained(folder / f"text_encoder{end}")
    clip_tokenizer("!" if config["hidden_size"] >= 1024 else "<|endoftext|>").save_pretrained(folder / f"tokenizer{end}")
    return {f"text_encoder{end}": ["transformers", kind], f"tokenizer{end}": ["transformers", "CLIPTokenizer"]}


_ABSENT: Mapping[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False},
    "StableDiffusionXLPipeline": {"add_watermarker": False},
}


def _texts(file: Path, blueprint: Blueprint, tensors: Mapping[str, Tensor]) -> list[tuple[str, Mapping[str, Any]] | None]:
    """The text encoders that the file holds, None for T5 where SD 3 goes without; raises BaseModelError where a part is missing."""
    held = {part for part, starts in _PARTS.items() if any(name.startswith(starts) for name in tensors)}
    kinds = ["t5" if name == "T5EncoderModel" else f"text_encoder{f'_{i + 1}' if i else ''}" for i, (name, _) in enumerate(blueprint.texts)]
    optional = blueprint.pipeline == "StableDiffusion3Pipeline"
    missing = [part for part in ("vae", *kinds) if part not in held and not (part == "t5" and optional)]
    if missing:
        names = ", ".join("T5" if part == "t5" else part for part in missing)
        remedy = "give the diffusers folder of the whole model to --base, and this file to --denoiser"
        raise BaseModelError(f"the file lacks {names}", where=file, remedy=remedy)
    if "t5" in held and "t5" in kinds:
        remedy = "give a diffusers folder of the same model, which has it, with --base-config"
        raise BaseModelError("T5's tokenizer is in no such file", where=file, remedy=remedy)
    return [text if kind in held else None for kind, text in zip(kinds, blueprint.texts, strict=True)]


def _marked(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the file says of its noise schedule, in empty tensors named ``v_pred`` and ``ztsnr``, as ComfyUI reads them."""
    velocity = {"prediction_type": "v_prediction"} if "v_pred" in tensors else {}
    return velocity | ({"rescale_betas_zero_snr": True} if "ztsnr" in tensors else {})
