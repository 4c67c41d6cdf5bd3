"""The options of ``optimize merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field

from optimizer.errors import UsageError
from optimizer.search.config import Dtype

_NOT_OF_THE_RECIPE = {
    "sources",
    "kind",
    "alpha",
    "weights",
    "blocks",
    "rank",
    "dialect",
    "triggers",
    "out",
    "base",
    "allow_unknown",
    "device",
    "force",
    "json_",
}


class MergeOptions(BaseModel):
    """Options of ``optimize merge``; values that are not given come from the recipe, else from the method's defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[str, ...] = Field(
        (), description="Two to five LoRA files, or demo:NAME; with a recipe also directories that hold its sources."
    )
    weights: tuple[float, ...] = Field(
        (), description="One weight a source, any number; where not given 1/√N for each of N sources, in steps of 0.05."
    )
    kind: Literal["lora", "model"] = Field(
        "lora", description="What the sources are; models are diffusers folders or single files of one family."
    )
    alpha: float | None = Field(None, description="Of models: how far from the first to the second, or how much of a difference to add.")
    method: str | None = Field(
        None, description="Merge method, see docs/methods.md; linear where not given. soup: the mean of the best merges of a study."
    )
    blocks: tuple[str, ...] = Field(
        (),
        description="Block weights of each source: a preset, names (IN=0.5,TE=0) or a list of LBW, kohya or Inspire; or a YAML file. "
        "Of models with --alpha one text: how much of it holds where.",
    )
    rank: str | None = Field(
        None,
        description="Greatest rank, or full for whole matrices; the sum of the sources' ranks where not given.",
    )
    rank_energy: float | None = Field(None, description="Keep this share of each module's energy, such as 0.99, at the least rank.")
    target_mb: float | None = Field(None, description="Greatest size of the file in MB; the modules share the room by what they need.")
    prune: float | None = Field(
        None, description="Give up this share of the whole energy, such as 0.01, and print what other shares would save."
    )
    density: float | None = Field(None, description="Share of entries that each source keeps.")
    epsilon: float | None = Field(None, description="Half the width of DELLA's window of probabilities.")
    gamma: float | None = Field(None, description="Share of the largest entries that breadcrumbs drops.")
    elect_on: Literal["raw", "weighted"] | None = Field(None, description="Entries that elect signs.")
    majority: Literal["total", "frequency"] | None = Field(None, description="Whether entries or their signs are summed.")
    normalise: Literal["count", "weight", "none"] | None = Field(None, description="What TIES divides by.")
    rescale: Literal["inverse", "l1", "none"] | None = Field(None, description="How DARE and DELLA make up for dropped entries.")
    mask_scale: float | None = Field(None, description="λ of consensus' masks.")
    quorum: int | None = Field(None, description="How many sources have to want an entry.")
    isotropy: float | None = Field(None, description="How flat iso makes the spectrum, 0 to 1.")
    side: Literal["input", "output"] | None = Field(None, description="Directions in which orthogonalize works.")
    strength: float | None = Field(None, description="Share of common directions that orthogonalize takes away.")
    scale: float | None = Field(None, description="Factor on the merged change of the TIES family, tsv, iso and consensus.")
    seed: int | None = Field(None, description="Seeds random masks.")
    dtype: Dtype | None = Field(None, description="Number format of the file; fp16 where not given.")
    dialect: Literal["kohya", "diffusers", "comfyui"] | None = Field(None, description="Key names of the file; kohya where not given.")
    triggers: tuple[str, ...] = Field((), description='Trigger word of each source, "" for none; read from the files where not given.')
    out: Path | None = Field(
        None,
        description="File or directory to write; a name that is taken gets the next version.",
    )
    base: str = Field(
        "", description="Diffusers folder of the base model, which DoRA, (IA)³, OFT, BOFT and GLoRA need; what models were trained from."
    )
    allow_unknown: bool = Field(False, description="Leave out tensors of the sources that are not understood, with a warning.")
    device: str = Field("auto", description="Torch device.")
    force: bool = Field(False, description="Write over an existing file; allow more than five sources.")
    json_: Annotated[bool, Parameter("--json")] = Field(False, description="Print JSON for machines, with the report of every module.")

    def fields(self) -> dict[str, Any]:
        """Returns the recipe fields that were given, except weights, blocks and sources."""
        given = {name: value for name, value in self.model_dump(exclude=_NOT_OF_THE_RECIPE).items() if value is not None}
        return given | ({} if self.rank is None else {"rank": _rank(self.rank)})


def _rank(text: str) -> int | str:
    if text == "full":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"got {text!r}", where="--rank", remedy="give a number, 1 or more, or full")
    return int(text)
