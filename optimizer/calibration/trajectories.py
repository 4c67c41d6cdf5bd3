"""Trajectories: inputs of the denoiser while a composition is drawn, and the composition's outputs there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimizer.calibration.compositions import Composition, stacked
from optimizer.calibration.live.denoiser import Call, with_rows
from optimizer.calibration.live.model import LiveModel
from optimizer.errors import TrialError
from optimizer.rendering.prompt_encoding import length
from optimizer.rendering.prompts import Prompt
from optimizer.rendering.text.states import TextStates

STEPS = 5
"""Greatest number of sampling steps of a trajectory. With few, the same work covers more texts, and a router learns more from texts."""

Encoded = Mapping[int, tuple[TextStates, TextStates]]
"""Position of a prompt → its text states and those of the negative prompt."""


@dataclass(frozen=True)
class Points:
    """Inputs of the denoiser along trajectories, and the guided outputs of a teacher there, on the CPU.

    Attributes:
        prompts: prompts of the trajectories.
        prompt: position of each point's prompt, int64, (N,).
        step: number of each point's step, int64, (N,).
        sample: noisy latents, as the denoiser gets them, (N, …).
        timestep: timestep of each point, (N,).
        target: guided outputs of the teacher, fp32, (N, …).
        others: other arguments of the denoiser, equal for all points; tensors with one row a prompt hold a single row.
        asked: which sources each prompt asks for, bool, (prompts, K).
        lengths: length of each prompt's text states, int64, (prompts,).
    """

    prompts: tuple[Prompt, ...]
    prompt: Tensor
    step: Tensor
    sample: Tensor
    timestep: Tensor
    target: Tensor
    others: Mapping[str, Any]
    asked: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.prompt)


class _Recorder:
    """Collects the points of a drawing; those that are drawn again after running out of memory replace the first ones.

    Args:
        guidance: classifier-free guidance scale.
    """

    def __init__(self, guidance: float) -> None:
        self._guidance = guidance
        self.points: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}
        self.others: dict[str, Any] = {}

    @torch.inference_mode(False)
    def watch(self, rows: Sequence[int], step: int, call: Call, output: Tensor) -> None:
        """Keeps noisy latents, timestep and guided output of every prompt."""
        count = len(rows)
        target = guided(output, count, self._guidance).float()
        for i, row in enumerate(rows):
            self.points[row, step] = (_plain(call.sample[i]), _plain(call.timestep[i]), _plain(target[i]))
        self.others = self.others or _copied(with_rows(call.others, len(call.sample), lambda each: each[:1]))


def record(
    model: LiveModel,
    composition: Composition,
    prompts: Sequence[Prompt],
    *,
    steps: int = STEPS,
    tick: Callable[[int], None] | None = None,
) -> Points:
    """Draws prompts with a composition, and returns the points of its trajectories with its guided outputs.

    Args:
        model: live model.
        composition: teacher.
        prompts: prompts to draw.
        steps: greatest number of sampling steps; a picture that takes fewer is drawn with its own number.
        tick: called with the number of pictures finished so far.

    Raises:
        TrialError: a picture contains NaN, or memory does not suffice for a single one.
    """
    recorder = _Recorder(model.guidance)
    model.renderer.with_steps(steps).render(prompts, model.composed(composition, recorder.watch), tick=tick)
    keys = sorted(recorder.points)
    sample, timestep, target = map(torch.stack, zip(*(recorder.points[key] for key in keys), strict=True))
    prompt, step = torch.tensor(keys).T
    lengths = torch.tensor([length(state) for state in model.renderer.encoded(prompts)[0]])
    asked = model.asked(prompts)
    return Points(tuple(prompts), prompt, step, sample, timestep, target, recorder.others, asked, lengths)


def encoded_rows(model: LiveModel, points: Points, rows: Tensor) -> Encoded:
    """Returns the text states of some points' prompts by the text encoders as they are at the moment of the call, by prompt."""
    which = sorted(set(points.prompt[rows].tolist()))
    states, blanks = model.renderer.encoded([points.prompts[i] for i in which])
    return {i: (state, blank) for i, state, blank in zip(which, states, blanks, strict=True)}


def alike(points: Points, count: int, generator: torch.Generator) -> Tensor:
    """Returns the positions of random points, (count,), whose prompts have text states of equal length."""
    lengths = points.lengths[points.prompt]
    first = torch.randint(len(points), (1,), generator=generator)
    pool = (lengths == lengths[first]).nonzero()[:, 0]
    return pool[torch.randint(len(pool), (count,), generator=generator)]


def batches(points: Points, rows: Tensor, size: int) -> Iterator[Tensor]:
    """Yields the positions of points in batches whose prompts have text states of equal length."""
    lengths = points.lengths[points.prompt[rows]]
    for one in torch.unique(lengths):
        yield from torch.split(rows[lengths == one], size)


def predicted(model: LiveModel, points: Points, rows: Tensor, encoded: Encoded) -> Tensor:
    """Returns the guided outputs of the denoiser at some points, as its modules are at the moment of the call, fp32, (n, …).

    Args:
        model: live model, with the branches installed.
        points: points.
        rows: positions of the points, of prompts with text states of equal length.
        encoded: text states of the points' prompts, by prompt.
    """
    device, dtype = model.renderer.device, model.renderer.dtype
    pairs = [encoded[i] for i in points.prompt[rows].tolist()]
    sides = [[blank for _, blank in pairs], [state for state, _ in pairs]][not model.guided :]
    sample = points.sample[rows].to(device, dtype).repeat(len(sides), *[1] * (points.sample.ndim - 1))
    timestep = points.timestep[rows].to(device).repeat(len(sides))
    others = with_rows(_copied(points.others, device), 1, lambda each: each.expand(len(sample), *each.shape[1:]))
    call = model.denoiser.with_texts(Call(sample, timestep, {}, others), stacked([state for side in sides for state in side]))
    return guided(model.denoiser.compute(call), len(rows), model.guidance).float()


def guided(output: Tensor, count: int, guidance: float) -> Tensor:
    """Returns u + guidance · (c − u) of outputs for the negative prompts and the prompts; outputs without negative ones as they are.

    Args:
        output: (count, …) or (2 · count, …), negative prompts first.
        count: number of prompts.
        guidance: classifier-free guidance scale.
    """
    if len(output) == count:
        return output
    if len(output) != 2 * count:
        problem = f"the pipeline calls its denoiser with {len(output)} rows for {count} prompts; one or two each are understood"
        raise TrialError(problem, remedy="use a pipeline with plain classifier-free guidance")
    plain, asked = output.chunk(2)
    return plain + guidance * (asked - plain)


def _plain(tensor: Tensor) -> Tensor:
    """Returns a copy on the CPU that can take part in a backward pass, which tensors of the inference mode cannot."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)


def _copied(arguments: Mapping[str, Any], device: torch.device | None = None) -> dict[str, Any]:
    """Returns arguments whose tensors lie on a device; for None, as copies on the CPU."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, dict):
            found[name] = _copied(value, device)
        elif isinstance(value, Tensor):
            found[name] = _plain(value) if device is None else value.to(device)
        else:
            found[name] = value
    return found
