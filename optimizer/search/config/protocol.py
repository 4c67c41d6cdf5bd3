"""Protocol: the prompts that candidates are compared on, and the embedder that compares them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field

from optimizer.search.config.option import Option, Panel, Settings
from optimizer.search.config.values import PathText, absolute, absolute_if_there


class Protocol(Settings):
    """How candidates are measured."""

    prompts: Annotated[PathText, Option(9, Panel.PICTURES)] = Field(
        default="", description="YAML file with the words that prompts are built from."
    )
    own: Annotated[int, Option(10, Panel.PICTURES)] = Field(default=4, ge=1, description="Prompts per source that ask for it alone.")
    joint: Annotated[int, Option(11, Panel.PICTURES)] = Field(
        default=8, ge=0, description="Prompts that ask for all sources in one picture."
    )
    confirm: Annotated[int, Option(12, Panel.PICTURES, identity=False)] = Field(
        default=8, ge=1, description="Fresh prompts of each kind on which the finalists are compared."
    )
    finalists: Annotated[int, Option(13, Panel.PICTURES, identity=False)] = Field(
        default=3, ge=1, description="Candidates that are compared on the fresh prompts."
    )
    embedder: Annotated[PathText, Option(20, Panel.PICTURES)] = Field(
        default="", description="open_clip model, MODEL/PRETRAINED or a folder; a default that suits the base where not given."
    )

    def resolved(self) -> Self:
        """Returns a copy with absolute paths."""
        return self.model_copy(update={"prompts": absolute(self.prompts), "embedder": absolute_if_there(self.embedder)})
