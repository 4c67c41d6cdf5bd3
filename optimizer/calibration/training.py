"""Training of a router on a teacher's outputs, by gradients that flow through the frozen model to the router alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from optimizer.calibration.activations import Moments
from optimizer.calibration.gradient_fallback import GradientFallback
from optimizer.calibration.live.model import LiveModel
from optimizer.calibration.live.routed_modules import Routing
from optimizer.calibration.trajectories import Points, alike, batches, encoded_rows, predicted
from optimizer.calibration.whitening import Whitening
from optimizer.errors import TrialError
from optimizer.rendering.memory.oom import attempt

_CLIP = 1.0
_SMOOTHING = 0.9
_STEP_DOWN = 16.0
_REMEDY = "lower the learning rate, or compute in bf16 or fp32"

BATCH = 16
"""Number of points of a training step."""


@dataclass(frozen=True)
class Training:
    """How a router is trained.

    Attributes:
        steps: number of steps of Adam.
        rate: greatest learning rate of the one-cycle schedule, in whitened coordinates, where 1 is the size of a row of the identity.
        batch: points a step.
        diagonal: whether only a factor on each rank of each source is trained (ZipRank, arXiv 2504.13206).
        texts: whether the routers of the text encoders are trained, too; otherwise they stay as they start.
        seed: seed of the choice of points.
    """

    steps: int
    rate: float = 0.01
    batch: int = BATCH
    diagonal: bool = False
    texts: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """The state after a step of training.

    Attributes:
        number: number of the step, from 1.
        loss: smoothed mean squared difference of guided outputs.
        student: routers that are trained, which the next step changes.
    """

    number: int
    loss: float
    student: _Student

    def routing(self) -> Routing:
        """Returns copies of the current matrices, fp32, on the CPU."""
        return self.student.detached()


def train(
    model: LiveModel, points: Points, start: Routing, moments: Moments, training: Training, fallback: GradientFallback | None = None
) -> Iterator[Step]:
    """Trains routers until the student's guided outputs equal the teacher's at the points of its trajectories.

    Args:
        model: live model.
        points: inputs and the teacher's outputs.
        start: matrices to start from, for every module.
        moments: second moments of z, which precondition the training.
        training: how long and how fast.
        fallback: how gradients fit into memory, as earlier trainings on the model have found out, and what to do when they do not.

    Yields:
        The state after every step.

    Raises:
        TrialError: the loss is not finite, or memory does not suffice for a single point.
    """
    student = _Student(model, start, moments, training)
    optimiser = torch.optim.Adam(student.trained.values(), lr=training.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.rate, total_steps=training.steps)
    generator = torch.Generator().manual_seed(training.seed)
    gradients = _Gradients(model, points, student, fallback or GradientFallback(lambda line: None))
    smooth = 0.0
    try:
        for number in range(1, training.steps + 1):
            rows = alike(points, training.batch, generator)
            optimiser.zero_grad()
            with model.frozen():
                loss = gradients.accumulate(rows)
            torch.nn.utils.clip_grad_norm_(student.trained.values(), _CLIP)
            optimiser.step()
            schedule.step()
            smooth = loss if number == 1 else _SMOOTHING * smooth + (1 - _SMOOTHING) * loss
            yield Step(number, smooth, student)
    finally:
        model.denoiser.restore()


class _Student:
    """Routers of all modules, of which some are trained, in whitened coordinates or as diagonals."""

    def __init__(self, model: LiveModel, start: Routing, moments: Moments, training: Training) -> None:
        self.texts = training.texts and model.modules.change_texts
        paths = [path for path in start if self.texts or not path.startswith("text_encoder")]
        self._fixed = {path: matrix for path, matrix in start.items() if path not in paths}
        self._whitened: dict[str, Whitening] = {}
        self.trained: dict[str, Tensor] = {}
        for path in paths:
            if training.diagonal:
                own = start[path] if start[path].ndim == 1 else start[path].diagonal()
                self.trained[path] = own.clone().requires_grad_()
            else:
                self._whitened[path] = Whitening.of(model.modules.factors(path)[0], moments[path])
                self.trained[path] = self._whitened[path].coordinates(start[path]).requires_grad_()

    def routing(self) -> dict[str, Tensor]:
        """Returns the matrices, as functions of what is trained."""
        own = {path: self._whitened[path].router(inner) if path in self._whitened else inner for path, inner in self.trained.items()}
        return own | self._fixed

    @torch.no_grad()
    def detached(self) -> Routing:
        """Returns the matrices' values."""
        return {path: matrix.detach().clone() for path, matrix in self.routing().items()}


class _Gradients:
    """Accumulates the gradients of a batch, in parts that fit into memory."""

    def __init__(self, model: LiveModel, points: Points, student: _Student, fallback: GradientFallback) -> None:
        self._model, self._points, self._student, self._fallback = model, points, student, fallback
        fallback.begin(model, texts=student.texts)
        # Gradients of a mean over a picture's latents are below what fp16 can hold: they are computed of the sum, and divided afterwards.
        self._scale = float(points.target[0].numel()) if model.renderer.dtype == torch.float16 else 1.0
        self._encoded = None if student.texts else model.encoded_by(student.routing(), points.prompts)

    def accumulate(self, rows: Tensor) -> float:
        """Adds the gradient of the mean loss over some points, and returns the loss."""
        self._fallback.part = self._fallback.part or len(rows)
        while (loss := attempt(self._whole, rows)) is None or (isfinite(loss) and self._damaged()):
            if loss is None:
                self._fallback.relieve(self._model, texts=self._student.texts)
            elif self._scale > 1:
                self._scale = max(1.0, self._scale / _STEP_DOWN)
            else:
                found = self._damaged()
                problem = f"gradients of {len(found)} of {len(self._student.trained)} modules are not finite"
                raise TrialError(problem, where=found[0], remedy=_REMEDY)
            for inner in self._student.trained.values():
                inner.grad = None
        self._fallback.fitted = True
        for inner in self._student.trained.values():
            if inner.grad is not None:
                inner.grad /= self._scale
        if not isfinite(loss):
            raise TrialError(f"the loss of the training is {loss}", remedy=_REMEDY)
        return loss

    def _damaged(self) -> list[str]:
        """Returns the modules whose gradients are not finite."""
        gradients = {path: inner.grad for path, inner in self._student.trained.items()}
        return [path for path, gradient in gradients.items() if gradient is not None and not bool(gradient.isfinite().all())]

    def _whole(self, rows: Tensor) -> float:
        return sum((self._some(part, len(rows)) for part in torch.split(rows, self._fallback.part)), 0.0)

    def _some(self, rows: Tensor, count: int) -> float:
        model, points = self._model, self._points
        with model.modules.installed(), model.modules.at(self._student.routing()):
            found = predicted(model, points, rows, self._encoded or encoded_rows(model, points, rows))
            loss = (found - points.target[rows].to(found.device)).square().flatten(1).mean(dim=1).sum() / count
            torch.autograd.backward(loss * self._scale)  # with the branches installed: checkpointing computes modules again
        return float(loss.detach())


def mean_loss(model: LiveModel, points: Points, rows: Tensor, routing: Mapping[str, Tensor]) -> float:
    """Returns the mean squared difference of guided outputs at some points."""
    total = 0.0
    with torch.no_grad(), model.modules.installed(), model.modules.at(routing):
        for some in batches(points, rows, model.renderer.settings.batch):
            found = predicted(model, points, some, encoded_rows(model, points, some)).cpu()
            total += float((found - points.target[some]).square().flatten(1).mean(dim=1).sum())
    return total / len(rows)
