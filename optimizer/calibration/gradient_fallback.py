"""Fallback steps of a training that runs out of memory on the device."""

from __future__ import annotations

from dataclasses import dataclass

from optimizer.calibration.live.model import LiveModel
from optimizer.errors import TrialError
from optimizer.rendering.memory.oom import Note

_LEAST = "out of memory with one point at a time and gradient checkpointing"


@dataclass
class GradientFallback:
    """How the gradients of a batch are computed so that they fit into memory; a step is never reverted, so later trainings begin with it.

    The batch is split into smaller parts, then activations are computed again in the backward pass instead of being kept, then models that
    a training step does not need are moved to the computer's memory. The result is the same but for rounding.

    Attributes:
        note: called with one line for each step.
        part: number of points whose gradients are computed at once; 0 before the first attempt, which takes the whole batch.
        checkpointed: whether activations are computed again (gradient checkpointing).
        fitted: whether gradients were computed this way.
    """

    note: Note
    part: int = 0
    checkpointed: bool = False
    fitted: bool = False

    def begin(self, model: LiveModel, *, texts: bool) -> None:
        """Prepares a live model for gradients that are computed this way, and that pass through the text encoders if ``texts`` is set."""
        if texts:
            model.keep_texts()
        if self.checkpointed:
            model.denoiser.save_memory()

    def relieve(self, model: LiveModel, *, texts: bool) -> None:
        """Takes the next step, so that the next attempt needs less memory.

        Args:
            model: live model that is trained.
            texts: whether gradients pass through the text encoders, which then stay on the device.

        Raises:
            TrialError: memory does not suffice for a single point, and no further step exists.
        """
        self.fitted = False
        if self.part > 1:
            half = self.part // 2
            self.note(f"out of memory with gradients of {self.part} points at once: going on with {half}")
            self.part = half
        elif not self.checkpointed:
            self.note("out of memory with gradients of one point at a time: going on with gradient checkpointing, which is slower")
            self.checkpointed = True
            model.denoiser.save_memory()
        elif model.offload_idle(texts=texts):
            self.note(f"{_LEAST}: going on with idle models in the computer's memory, which makes drawing slower")
        else:
            where = " and idle models in the computer's memory" if model.renderer.offloaded else ""
            raise TrialError(_LEAST + where, remedy="end other programs that need memory, lower the resolution, or quantise the base")
