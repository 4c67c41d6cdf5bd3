"""Output: the exported file, and the pictures that stay on the disk."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from optimizer.search.config.option import Option, Panel, Settings
from optimizer.search.config.values import Dtype, KeepImages


class Output(Settings):
    """What a run leaves behind."""

    rank: Annotated[int | None, Option(16, Panel.OUTPUT, not_for_models="is for LoRAs")] = Field(
        default=None, ge=1, description="Rank of the exported file; the sum of the sources' ranks where not given."
    )
    dtype: Annotated[Dtype, Option(17, Panel.OUTPUT)] = Field(default="fp16", description="Number format of the exported file, or model.")
    dialect: Annotated[Literal["kohya", "diffusers", "comfyui"], Option(18, Panel.OUTPUT, identity=False)] = Field(
        default="kohya", description="Key names of the exported file."
    )
    keep_images: Annotated[KeepImages, Option(43, Panel.OUTPUT, identity=False)] = Field(
        default="best",
        description="Trials whose pictures stay on the disk: the baselines and the best so far, all, or none. "
        "Their contact sheets, which are small, stay with best, too.",
    )
