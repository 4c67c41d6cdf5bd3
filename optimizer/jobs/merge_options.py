"""The options of one merge: sources, recipe fields and output, each optional."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from optimizer.errors import UsageError
from optimizer.merging import PARAMETERS, Recipe
from optimizer.search.config import Dtype

# Recipe fields that are worked out from several options, or that a recipe alone gives.
_RESOLVED_APART = ("sources", "weights", "blocks", "rank", "calibration")


class _Common(BaseModel):
    """Options that come before the parameters of the methods."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[str, ...] = Field(
        default=(), description="Two to five LoRA files, or demo:NAME; with a recipe also directories that hold its sources."
    )
    weights: tuple[float, ...] = Field(
        default=(), description="One weight a source, any number; where not given 1/√N for each of N sources, in steps of 0.05."
    )
    kind: Literal["lora", "model"] = Field(
        default="lora", description="What the sources are; models are diffusers folders or single files of one family."
    )
    alpha: float | None = Field(
        default=None, description="Of models: how far from the first to the second, or how much of a difference to add."
    )
    method: str | None = Field(
        default=None,
        description="Merge method, see docs/methods.md; linear where not given. soup: the mean of the best merges of a study; "
        "distill, zip, ssr, iteris: solved on the base model.",
    )
    blocks: tuple[str, ...] = Field(
        default=(),
        description="Block weights of each source: a preset, names (IN=0.5,TE=0) or a list of LBW, kohya or Inspire; or a YAML file. "
        "Of models with --alpha one text: how much of it holds where.",
    )
    rank: str | None = Field(
        default=None,
        description="Greatest rank, or full for whole matrices; the sum of the sources' ranks where not given.",
    )
    rank_energy: float | None = Field(default=None, description="Keep this share of each module's energy, such as 0.99, at the least rank.")
    target_mb: float | None = Field(
        default=None, description="Greatest size of the file in MB; the modules share the room by what they need."
    )
    prune: float | None = Field(
        default=None, description="Give up this share of the whole energy, such as 0.01, and print what other shares would save."
    )


def _parameter_options() -> dict[str, Any]:
    """Returns the type and the field of every parameter, in the recipe's order; the recipe checks the bounds."""
    ordered = [PARAMETERS[name] for name in Recipe.model_fields if name in PARAMETERS]
    return {p.name: (p.value_type | None, Field(default=None, description=p.description)) for p in ordered}


if TYPE_CHECKING:
    _Parametrised = _Common
else:
    _Parametrised = create_model("_Parametrised", __base__=_Common, **_parameter_options())


class MergeOptions(_Parametrised):
    """Options of one merge, among them every parameter of every method; what is not given comes from the recipe, else from the method."""

    seed: int | None = Field(default=None, description="Seeds random masks.")
    solve_steps: int = Field(
        default=150, ge=1, le=100_000, description="Steps of training of the methods distill and zip; more take longer and come nearer."
    )
    dtype: Dtype | None = Field(default=None, description="Number format of the file; fp16 where not given.")
    dialect: Literal["kohya", "diffusers", "comfyui"] | None = Field(
        default=None, description="Key names of the file; kohya where not given."
    )
    triggers: tuple[str, ...] = Field(
        default=(), description='Trigger word of each source, "" for none; read from the files where not given.'
    )
    out: Path | None = Field(
        default=None,
        description="File or directory to write; a name that is taken gets the next version.",
    )
    base: str = Field(
        default="",
        description="Diffusers folder of the base model, which DoRA, (IA)³, OFT, BOFT and GLoRA need; what models were trained from.",
    )
    allow_unknown: bool = Field(default=False, description="Leave out tensors of the sources that are not understood, with a warning.")
    device: str = Field(default="auto", description="Torch device.")
    force: bool = Field(default=False, description="Write over an existing file; allow more than five sources.")

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
