"""The renderer of a job that draws without a study: the base that is given, or the demo world's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from optimizer.adapters import Adapter
from optimizer.rendering import AnyRenderer, Loading, RenderSettings, load_renderer
from optimizer.rendering.memory.oom import Note
from optimizer.search.sources.accelerators import Accelerator, advice_on_steps, joined
from studies.demo.world import GUIDANCE, PREFIX, STEPS, demo_base


@dataclass(frozen=True)
class Drawing:
    """What a job draws with.

    Attributes:
        base: model that the sources were trained on; empty for the demo world's.
        eval_base: model that draws instead; empty for the base.
        settings: render settings; missing values default to those of the model.
        device: torch device, or ``auto``.
        accelerators: LoRAs that everything is drawn with.
    """

    base: str
    eval_base: str = ""
    settings: RenderSettings = field(default_factory=RenderSettings)
    device: str = "auto"
    accelerators: Sequence[Accelerator] = ()

    @property
    def demo(self) -> bool:
        """Whether the demo world's base draws."""
        return not self.base and not self.eval_base

    def renderer(self, adapters: Sequence[Adapter], note: Note) -> AnyRenderer:
        """Loads the model; raises the exceptions of ``load_renderer``.

        Args:
            adapters: adapters that will be drawn.
            note: called with one line for each warning.
        """
        base = self.base or str(demo_base())
        settings = replace(self.settings.completed(STEPS, GUIDANCE), batch=16) if self.demo else self.settings
        renderer = load_renderer(
            self.eval_base or base,
            settings,
            Loading(device=self.device),
            note=note,
            adapters=adapters,
            accelerator=joined(self.accelerators),
            trained_on=base if self.eval_base else "",
        )
        if advice := advice_on_steps(self.accelerators, self.settings.steps, renderer.settings):
            note(advice)
        return renderer


def all_of_demo(specs: Sequence[str]) -> bool:
    """Returns whether all sources are those of the demo world, whose base then needs no name."""
    return all(spec.startswith(PREFIX) for spec in specs)
