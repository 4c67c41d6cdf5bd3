"""Inputs: the sources, what they are, and the model that they were trained on."""

from __future__ import annotations

import os
from typing import Annotated, Literal, Self

from pydantic import Field

from optimizer.errors import UsageError
from optimizer.search.config.accelerators import parse_accelerators
from optimizer.search.config.option import Option, Panel, Settings
from optimizer.search.config.values import DEMO, FAKE, PathText, absolute, absolute_if_there

MAX_SOURCES = 5


class Inputs(Settings):
    """What is merged, and over which base model."""

    sources: Annotated[tuple[PathText, ...], Option(1, Panel.SOURCES, "FILE...")] = Field(
        default=(), description="LoRA files to merge, two to five. demo:NAME is one that ships with this package."
    )
    roles: Annotated[tuple[Literal["style", "character", "concept"], ...], Option(7, Panel.SOURCES)] = Field(
        default=(), description="Role of each source, in the same order. By default it is read from the file."
    )
    triggers: Annotated[tuple[str, ...], Option(8, Panel.SOURCES, "WORD...")] = Field(
        default=(), description='Trigger word of each source, in the same order; "" for none. By default it is read from the file.'
    )
    kind: Annotated[Literal["lora", "model"], Option(2, Panel.SOURCES)] = Field(
        default="lora",
        description="Type of the sources and of the result: LoRAs, or full models (folders, .safetensors files, hub names).",
    )
    allow_unknown: Annotated[bool, Option(19, Panel.SOURCES, not_for_models="is for LoRAs")] = Field(
        default=False, description="Skip tensors that are not recognised, with a warning, instead of refusing the file."
    )
    force: Annotated[bool, Option(45, Panel.SOURCES, identity=False)] = Field(
        default=False, description="Merge more than five sources. With --kind model: merge what matches, where models differ."
    )
    base: Annotated[PathText, Option(3, Panel.BASE_MODEL, "MODEL")] = Field(
        default="",
        description="Model that the sources were trained on: diffusers folder, .safetensors file, or a name in the "
        "local hub cache. Not needed for demo sources; fake: is a stand-in for test runs.",
    )
    eval_base: Annotated[PathText, Option(55, Panel.BASE_MODEL, "MODEL", not_for_models="full models draw themselves")] = Field(
        default="",
        description="Model of the same family to draw with instead, such as the turbo version of the one that the sources were trained on.",
    )
    with_: Annotated[
        tuple[PathText, ...], Option(56, Panel.BASE_MODEL, "FILE...", not_for_models="full models replace the weights that it is added to")
    ] = Field(
        default=(),
        description="Accelerator LoRAs (LCM, Lightning, Turbo …) to draw everything with, FILE or FILE:WEIGHT. They are not merged.",
    )

    @property
    def whole(self) -> bool:
        """Whether the sources are full models."""
        return self.kind == "model"

    @property
    def interpolates(self) -> bool:
        """Whether full models are merged with each other, without a common base model."""
        return self.whole and not self.base

    @property
    def drawing_base(self) -> str:
        """Model that is loaded and draws, as named by the user; empty for the demo base."""
        return self.eval_base or self.base or (self.sources[0] if self.whole else "")

    @property
    def demo(self) -> bool:
        """Whether the sources were trained on the demo base."""
        return not self.base and not self.whole

    def resolved(self) -> Self:
        """Returns a copy with absolute paths."""
        sources = tuple(self._resolved(source) for source in self.sources)
        bases = {"base": absolute_if_there(self.base), "eval_base": absolute_if_there(self.eval_base)}
        accelerators = tuple(str(text.resolved()) for text in parse_accelerators(self.with_))
        return self.model_copy(update={"sources": sources, **bases, "with_": accelerators})

    def _resolved(self, source: str) -> str:
        if self.whole:
            return absolute_if_there(source)
        return source if source.startswith(DEMO) else absolute(source)


def check_lists(inputs: Inputs) -> None:
    """Checks that roles and triggers, if given, are as many as the sources.

    Raises:
        UsageError: their number differs.
    """
    for option, each in (("--roles", inputs.roles), ("--triggers", inputs.triggers)):
        if each and len(each) != len(inputs.sources):
            remedy = "give one per source, in the same order"
            raise UsageError(f"{len(each)} given for {len(inputs.sources)} sources", where=option, remedy=remedy)


def check_files(inputs: Inputs) -> None:
    """Checks that LoRA files which need a base model have one.

    Raises:
        UsageError: there is no base, or, without one, a source does not exist.
    """
    files = [source for source in inputs.sources if not source.startswith(DEMO)]
    if not inputs.base and (missing := [file for file in files if not os.path.exists(absolute(file))]):
        remedy = "check the path; a source that ships with this package is written demo:NAME, see optimize demo"
        raise UsageError("does not exist", where=missing[0], remedy=remedy)
    if not inputs.base and files:
        remedy = "give the diffusers folder of the model that the sources were trained on"
        raise UsageError("no base model given", where="--base", remedy=remedy)


def check_eval_base(base: str, eval_base: str) -> None:
    """Checks that a model to draw with goes with the base model, as far as their names tell.

    Raises:
        UsageError: both are the same, or one is a stand-in and the other is not.
    """
    if not eval_base:
        return
    if eval_base == base:
        raise UsageError("is the base model itself", where=f"--eval-base {eval_base}", remedy="leave it out")
    if base.startswith(FAKE) != eval_base.startswith(FAKE):
        remedy = "give two models, or fake: to both"
        raise UsageError("only one of base model and model to draw with is a stand-in", where=f"--eval-base {eval_base}", remedy=remedy)


def check_count(sources: int, *, force: bool) -> None:
    """Rejects fewer than two sources, and, unless forced, more than the maximum.

    Raises:
        UsageError: the number of sources is out of range; the message names it.
    """
    if sources < 2:
        remedy = "give two to five LoRA files; one alone has nothing to be merged with"
        raise UsageError(f"{sources or 'no'} source given", where="--sources", remedy=remedy)
    if sources > MAX_SOURCES and not force:
        raise UsageError(f"{sources} sources given", where="--sources", remedy="merge at most five, or add --force")
