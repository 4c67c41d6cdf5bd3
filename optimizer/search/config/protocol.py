"""Protocol: the prompts that candidates are compared on, and the embedder that compares them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field

from optimizer.search.config.option import Option, Panel, Settings
from optimizer.search.config.values import PathText, absolute, absolute_parts


class Protocol(Settings):
    """How candidates are measured."""

    prompts: Annotated[PathText, Option(9, Panel.PICTURES, "FILE")] = Field(
        default="",
        description="YAML file with prompts of your own, or words to compose them of. By default a general list of words is used.",
    )
    own: Annotated[int, Option(10, Panel.PICTURES, "N")] = Field(
        default=4, ge=1, description="Number of prompts per source that ask for this source alone."
    )
    joint: Annotated[int, Option(11, Panel.PICTURES, "N")] = Field(
        default=8, ge=0, description="Number of prompts that ask for all sources in one picture."
    )
    confirm: Annotated[int, Option(12, Panel.PICTURES, "N", identity=False)] = Field(
        default=14, ge=1, description="Number of new prompts of each kind on which the finalists are compared."
    )
    finalists: Annotated[int, Option(13, Panel.PICTURES, "N", identity=False)] = Field(
        default=3, ge=1, description="Number of candidates that are compared on the new prompts."
    )
    embedder: Annotated[PathText, Option(20, Panel.PICTURES, "MODEL")] = Field(
        default="",
        description="Image encoder behind the scores: MODEL/PRETRAINED of open_clip, timm:MODEL, or a folder of either; several, separated "
        "by commas, count alike. By default one for the base model.",
    )

    metric: Annotated[tuple[str, ...], Option(50, Panel.PICTURES, "METRIC...")] = Field(
        default=(),
        description="Torchmetrics classes or functions of your own, NAME=MODULE:NAME_IN_MODULE[:RULE]. RULE: a weight in the score, or a "
        "constraint, >=X or <=X. See docs/objectives.md.",
    )

    priority: Annotated[tuple[str, ...], Option(51, Panel.PICTURES, "NAME=NUMBER...")] = Field(
        default=(),
        description="Priority of sources in the score, such as hero=2; 1 for those not named. NAME is a source's file name without its "
        "ending, or its position, from 1.",
    )
    keep: Annotated[tuple[str, ...], Option(52, Panel.PICTURES, "NAME=SHARE...")] = Field(
        default=(),
        description="Smallest share that a merge may keep of sources, above 0 and at most 1, such as hero=0.9: no other is exported.",
    )

    def resolved(self) -> Self:
        """Returns a copy with absolute paths."""
        return self.model_copy(update={"prompts": absolute(self.prompts), "embedder": absolute_parts(self.embedder)})
