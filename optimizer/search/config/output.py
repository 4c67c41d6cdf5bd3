"""Output: the exported file, and the pictures that stay on the disk."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from optimizer.search.config.option import Option, Panel, Settings
from optimizer.search.config.values import Dtype, KeepImages


class Output(Settings):
    """What a run leaves behind."""

    rank: Annotated[int | None, Option(16, Panel.OUTPUT, "N", not_for_models="is for LoRAs")] = Field(
        default=None, ge=1, description="Rank of the exported LoRA. By default the sum of the sources' ranks."
    )
    dtype: Annotated[Dtype, Option(17, Panel.OUTPUT)] = Field(default="fp16", description="Number format of the exported file.")
    dialect: Annotated[Literal["kohya", "diffusers", "comfyui"], Option(18, Panel.OUTPUT, identity=False)] = Field(
        default="kohya", description="Naming convention of the keys in the exported LoRA."
    )
    keep_images: Annotated[KeepImages, Option(43, Panel.OUTPUT, identity=False)] = Field(
        default="best",
        description="Pictures that stay on the disk: those of the baselines and the best trials, all, or none.",
    )
