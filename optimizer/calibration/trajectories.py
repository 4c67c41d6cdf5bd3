"""Trajectories: the points that a candidate's drawing passes, and what the denoiser should say there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from optimizer.calibration.compositions import Composition, stacked
from optimizer.calibration.live_denoiser import Call
from optimizer.calibration.live_model import LiveModel
from optimizer.rendering.prompt_encoding import length
from optimizer.rendering.prompts import Prompt
from optimizer.rendering.text.states import TextStates

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


@dataclass
class _Recorder:
    """Collects the points of a drawing."""

    guidance: float
    prompt: list[Tensor] = field(default_factory=list)
    step: list[Tensor] = field(default_factory=list)
    sample: list[Tensor] = field(default_factory=list)
    timestep: list[Tensor] = field(default_factory=list)
    target: list[Tensor] = field(default_factory=list)
    others: dict[str, Any] = field(default_factory=dict)

    @torch.inference_mode(False)
    def watch(self, rows: Sequence[int], step: int, call: Call, output: Tensor) -> None:
        count = len(rows)
        self.prompt.append(torch.tensor(rows))
        self.step.append(torch.full((count,), step))
        self.sample.append(_plain(call.sample[:count]))
        self.timestep.append(_plain(call.timestep[:count]))
        self.target.append(_plain(guided(output, count, self.guidance).float()))
        if not self.others:
            self.others = {name: _template(name, value, len(call.sample)) for name, value in call.others.items()}


def record(model: LiveModel, composition: Composition, prompts: Sequence[Prompt], tick: Callable[[int], None] | None = None) -> Points:
    """Draws prompts with a composition, and returns the points of its trajectories with its guided outputs.

    Args:
        model: live model.
        composition: teacher.
        prompts: prompts to draw.
        tick: called with the number of pictures finished so far.

    Raises:
        TrialError: a picture contains NaN, or memory does not suffice for a single one.
    """
    recorder = _Recorder(model.guidance)
    model.renderer.render(prompts, model.composed(composition, recorder.watch), tick=tick)
    parts = {name: torch.cat(getattr(recorder, name)) for name in ("prompt", "step", "sample", "timestep", "target")}
    lengths = torch.tensor([length(state) for state in model.renderer.encoded(prompts)[0]])
    return Points(prompts=tuple(prompts), others=recorder.others, asked=model.asked(prompts), lengths=lengths, **parts)


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
    others = {name: _expanded(name, value, len(sample), device) for name, value in points.others.items()}
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
    plain, asked = output.chunk(2)
    return plain + guidance * (asked - plain)


def _plain(tensor: Tensor) -> Tensor:
    """Returns a copy on the CPU that can take part in a backward pass, which tensors of the inference mode cannot."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)


_POSITIONS = ("img_ids", "txt_ids")


def _template(name: str, value: Any, count: int) -> Any:
    if isinstance(value, dict):
        return {key: _template(key, entry, count) for key, entry in value.items()}
    if not isinstance(value, Tensor):
        return value
    each = value.ndim > 0 and len(value) == count and name not in _POSITIONS
    return _plain(value[:1] if each else value)


def _expanded(name: str, value: Any, count: int, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(key, entry, count, device) for key, entry in value.items()}
    if not isinstance(value, Tensor):
        return value
    each = value.ndim > 0 and len(value) == 1 and name not in _POSITIONS
    return value.to(device).expand(count, *value.shape[1:]) if each else value.to(device)
