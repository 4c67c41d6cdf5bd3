"""The options of one merge: sources, recipe fields and output, each optional."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from optimizer.errors import UsageError
from optimizer.merging import PARAMETERS, Recipe
from optimizer.search.config import Dtype

SOLVING = ("resolve", "prompts", "preview", "eval_base", "with_", "steps", "guidance")
"""Options that only a merge that is solved on the base model has."""

# Recipe fields that are worked out from several options, or that a recipe alone gives.
_RESOLVED_APART = ("sources", "weights", "blocks", "rank", "calibration")


class MergePanel(StrEnum):
    """Panels of the help text of ``optimize merge``, in the order in which they are shown."""

    SOURCES = "Sources"
    METHOD = "Method"
    OUTPUT = "Output"
    SIZE = "Rank and size of the file"
    MODELS = "Base model and full models"
    PARAMETERS = "Parameters of particular methods"


@dataclass(frozen=True)
class MergeOption:
    """How the help text shows an option. Stands in the annotation of the option that it describes.

    Attributes:
        panel: panel of the help text.
        value: placeholder of the value in the help text; empty for flags, choices and what its type says well.
    """

    panel: MergePanel
    value: str = ""


def _parameter_options() -> dict[str, Any]:
    """Returns the type and the field of every parameter, in the recipe's order; the recipe checks the bounds."""
    ordered = [PARAMETERS[name] for name in Recipe.model_fields if name in PARAMETERS]
    shown = MergeOption(MergePanel.PARAMETERS)
    return {p.name: (Annotated[p.value_type | None, shown], Field(default=None, description=p.description)) for p in ordered}


if TYPE_CHECKING:
    _Parameters = BaseModel
else:
    _Parameters = create_model("_Parameters", **_parameter_options())


class MergeOptions(_Parameters):
    """Options of one merge, among them every parameter of every method; what is not given comes from the recipe, else from the method."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: Annotated[tuple[str, ...], MergeOption(MergePanel.SOURCES, "FILE...")] = Field(
        default=(),
        description="LoRA files to merge, two to five. demo:NAME is one that ships with this package. With a recipe, folders that hold "
        "its sources will do.",
    )
    weights: Annotated[tuple[float, ...], MergeOption(MergePanel.SOURCES)] = Field(
        default=(),
        description="Weight of each source, in the same order; it may be negative. By default 1/√N for each of N sources, rounded to 0.05, "
        "or 1 for solved merges.",
    )
    triggers: Annotated[tuple[str, ...], MergeOption(MergePanel.SOURCES, "WORD...")] = Field(
        default=(), description='Trigger word of each source, in the same order; "" for none. By default it is read from the file.'
    )
    allow_unknown: Annotated[bool, MergeOption(MergePanel.SOURCES)] = Field(
        default=False, description="Skip tensors that are not recognised, with a warning, instead of refusing the file."
    )
    method: Annotated[str | None, MergeOption(MergePanel.METHOD, "NAME")] = Field(
        default=None,
        description="How the sources are merged; docs/methods.md explains every method. By default linear, the weighted sum. soup "
        "averages the best merges of a study. distill, zip, ssr and iteris solve the merge on the model that --base names.",
    )
    blocks: Annotated[tuple[str, ...], MergeOption(MergePanel.METHOD, "BLOCKS...")] = Field(
        default=(),
        description="Block weights of each source: a preset such as STYLE, names such as IN=0.5,TE=0, or a list from LBW, kohya or "
        "Inspire. Or one YAML file for all.",
    )
    seed: Annotated[int | None, MergeOption(MergePanel.METHOD)] = Field(
        default=None, description="Seed of the methods that draw random numbers, such as dare_linear."
    )
    resolve: Annotated[bool, MergeOption(MergePanel.METHOD)] = Field(
        default=False, description="Solve the router of a solved recipe again, on the model that --base names."
    )
    preview: Annotated[Path | None, MergeOption(MergePanel.METHOD, "FILE")] = Field(
        default=None,
        description="Picture file in which distill and zip show, every 25 steps, what the composition draws (above) and the merge (below).",
    )
    prompts: Annotated[str, MergeOption(MergePanel.METHOD, "FILE")] = Field(
        default="",
        description="YAML file with the prompts that distill, zip, ssr and iteris draw, or words to compose them of. By default a general "
        "list of words is used.",
    )
    device: Annotated[str, MergeOption(MergePanel.METHOD, "DEVICE")] = Field(
        default="auto", description="Torch device that merges, such as cuda:1 or cpu. auto is a GPU if there is one."
    )
    out: Annotated[Path | None, MergeOption(MergePanel.OUTPUT)] = Field(
        default=None, description="File or folder to write to. A name that is taken gets the next version, such as mine_v2."
    )
    dtype: Annotated[Dtype | None, MergeOption(MergePanel.OUTPUT)] = Field(
        default=None, description="Number format of the file. By default fp16."
    )
    dialect: Annotated[Literal["kohya", "diffusers", "comfyui"] | None, MergeOption(MergePanel.OUTPUT)] = Field(
        default=None, description="Naming convention of the keys in the file. By default kohya, which most programs read."
    )
    force: Annotated[bool, MergeOption(MergePanel.OUTPUT)] = Field(
        default=False, description="Overwrite an existing file. Also allows more than five sources."
    )
    rank: Annotated[str | None, MergeOption(MergePanel.SIZE, "NUMBER")] = Field(
        default=None, description="Maximum rank of the result; full stores whole matrices. By default the ranks of the sources add up."
    )
    target_mb: Annotated[float | None, MergeOption(MergePanel.SIZE, "MB")] = Field(
        default=None, description="Maximum size of the file in MB. Modules that need higher ranks get more of it."
    )
    rank_energy: Annotated[float | None, MergeOption(MergePanel.SIZE, "SHARE")] = Field(
        default=None, description="Share of each module's energy to keep, such as 0.99; the smallest rank that keeps it is used."
    )
    prune: Annotated[float | None, MergeOption(MergePanel.SIZE, "SHARE")] = Field(
        default=None, description="Share of the total energy to give up, such as 0.01. Prints what other shares would save."
    )
    base: Annotated[str, MergeOption(MergePanel.MODELS, "MODEL")] = Field(
        default="",
        description="Base model, a diffusers folder. DoRA, (IA)³, OFT, BOFT and GLoRA files need it, merges that are solved on it, and "
        "methods that merge what full models changed in it.",
    )
    eval_base: Annotated[str, MergeOption(MergePanel.MODELS, "MODEL")] = Field(
        default="",
        description="Model of the same family to solve the merge on instead, such as the turbo version of the one that the sources were "
        "trained on.",
    )
    with_: Annotated[tuple[str, ...], MergeOption(MergePanel.MODELS, "FILE...")] = Field(
        default=(),
        description="Accelerator LoRAs (LCM, Lightning, Turbo …) that are active while a merge is solved, FILE or FILE:WEIGHT. They are "
        "not merged.",
    )
    steps: Annotated[int | None, MergeOption(MergePanel.MODELS, "N")] = Field(
        default=None, ge=1, description="Number of denoising steps in which a merge is solved. By default that of the base model."
    )
    guidance: Annotated[float | None, MergeOption(MergePanel.MODELS, "SCALE")] = Field(
        default=None, ge=0, description="Classifier-free guidance scale with which a merge is solved. By default that of the base model."
    )
    kind: Annotated[Literal["lora", "model"], MergeOption(MergePanel.MODELS)] = Field(
        default="lora",
        description="Type of the sources and of the result: LoRAs, or full models of one family (diffusers folders or .safetensors files).",
    )
    alpha: Annotated[float | None, MergeOption(MergePanel.MODELS)] = Field(
        default=None,
        description="With --kind model: how far to go from the first model to the second, or how much of a difference to add. --blocks "
        "then says how much of it to use where.",
    )

    def fields(self) -> dict[str, Any]:
        """Returns the recipe fields that were given, except weights, blocks and sources."""
        names = (name for name in Recipe.model_fields if name not in _RESOLVED_APART)
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return given | ({} if self.rank is None else {"rank": _rank(self.rank)})


def _rank(text: str) -> int | str:
    if text == "full":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"got {text!r}", where="--rank", remedy="give a number, 1 or more, or full")
    return int(text)
