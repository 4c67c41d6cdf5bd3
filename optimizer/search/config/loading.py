"""Loading: the parts of the base model, and how they are kept in memory."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Self

from pydantic import Field

from optimizer.rendering.loading import Apply, Offload, Precision, Quantize
from optimizer.rendering.loading import Loading as LoadingOptions
from optimizer.search.config.option import Option, Panel, Settings, option_of
from optimizer.search.config.values import PathText, absolute


class Loading(Settings):
    """How the base model is loaded."""

    vae: Annotated[PathText, Option(26, Panel.BASE_MODEL, "MODEL", part=True)] = Field(
        default="", description="Autoencoder to use instead of the base model's: diffusers folder or .safetensors file."
    )
    denoiser: Annotated[PathText, Option(28, Panel.BASE_MODEL, "MODEL", part=True, not_for_models="the sources bring their own")] = Field(
        default="",
        description="U-Net or transformer to use instead of the base model's: diffusers folder, .safetensors or .gguf file.",
    )
    base_config: Annotated[PathText, Option(27, Panel.BASE_MODEL, "FOLDER", part=True)] = Field(
        default="", description="Diffusers folder that describes the layout of a single-file base model, if unusual."
    )
    device: Annotated[str, Option(32, Panel.MEMORY, "DEVICE", per_machine=True)] = Field(
        default="auto", description="Torch device, such as cuda:1 or cpu. auto is a GPU if there is one."
    )
    precision: Annotated[Precision, Option(33, Panel.MEMORY)] = Field(
        default="auto", description="Number format of the base model in memory. auto chooses by model, device and free memory."
    )
    offload: Annotated[Offload, Option(35, Panel.MEMORY, identity=False)] = Field(
        default="auto",
        description="What to keep out of GPU memory: models (model) or layers (sequential) that are not in use; auto: only what must.",
    )
    quantize: Annotated[Quantize, Option(34, Panel.MEMORY, not_for_models="nothing can be put into weights of a few bits")] = Field(
        default="none", description="Quantise the denoiser and T5 while loading: nf4 (bitsandbytes), int8 or fp8 (torchao)."
    )
    decoder: Annotated[PathText, Option(29, Panel.MEMORY, "FOLDER", part=True)] = Field(
        default="",
        description="Tiny autoencoder (TAESD) that decodes the pictures of the search faster; the confirmation does without it.",
    )
    apply: Annotated[Apply, Option(36, Panel.MEMORY)] = Field(
        default="auto",
        description="How a candidate is applied: added to the weights, or as a branch beside them. auto prefers the weights.",
    )
    vae_slicing: Annotated[bool, Option(37, Panel.MEMORY, identity=False)] = Field(
        default=False, description="Decode one picture at a time, to save memory."
    )
    vae_tiling: Annotated[bool, Option(38, Panel.MEMORY)] = Field(
        default=False, description="Decode large pictures in tiles, to save memory. Pictures change slightly."
    )
    attention_slicing: Annotated[bool, Option(39, Panel.MEMORY, identity=False)] = Field(
        default=False, description="Compute attention in slices of heads, to save memory."
    )
    compile: Annotated[bool, Option(40, Panel.MEMORY)] = Field(default=False, description="Compile the denoiser, once for all candidates.")
    cuda_graphs: Annotated[bool, Option(41, Panel.MEMORY)] = Field(
        default=False, description="Compile the denoiser and record it as CUDA graphs."
    )

    def parts(self) -> dict[str, str]:
        """Returns the locations of the replacements for parts of the base model, by option; empty for the base's own part."""
        return {name: getattr(self, name) for name, field in type(self).model_fields.items() if option_of(field).part}

    def loading_options(self) -> LoadingOptions:
        """Returns the settings in the form that ``load_renderer`` takes."""
        return LoadingOptions(**{field.name: getattr(self, field.name) for field in fields(LoadingOptions)})

    def resolved(self) -> Self:
        """Returns a copy with absolute paths."""
        return self.model_copy(update={name: absolute(place) for name, place in self.parts().items()})
