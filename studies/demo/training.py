"""One resumable training loop for everything that the demo world learns.

Batches are drawn from a generator seeded by (seed, step), so a run that was stopped and resumed sees the same batches as one
that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from studies.demo.drawing.draw import Pixels

Loss = Callable[[np.random.Generator], Tensor]


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train: AdamW with a one-cycle learning rate and an average of the weights.

    Attributes:
        steps: optimiser steps.
        rate: peak learning rate.
        decay: weight decay.
        average: smoothing of the exponential moving average of the weights; 0 keeps the last weights.
        seed: seeds the batches.
        save_every: steps between checkpoints.
    """

    steps: int
    rate: float
    decay: float = 0.01
    average: float = 0.998
    seed: int = 0
    save_every: int = 100


def fit(modules: Iterable[nn.Module], loss: Loss, plan: Plan, checkpoint: Path) -> None:
    """Train the modules' trainable parameters in place; resumes from ``checkpoint`` and leaves the averaged weights.

    Args:
        modules: what to train; parameters without ``requires_grad`` are left alone.
        loss: draws a batch from the generator and returns its scalar loss.
        plan: length and rates.
        checkpoint: file that holds the state of the run; a finished run is only loaded.

    Raises:
        ValueError: the checkpoint is of a run with another plan.
    """
    weights = [p for m in modules for p in m.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, plan.rate, betas=(0.9, 0.99), weight_decay=plan.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, plan.steps + 1, pct_start=0.08, final_div_factor=100)
    averaged = [w.detach().clone() for w in weights]
    first = _restore(checkpoint, plan, weights, averaged, optimiser, schedule)
    begun, running = time.monotonic(), 0.0
    for step in range(first, plan.steps):
        torch.manual_seed(plan.seed * 1_000_003 + step)
        value = loss(np.random.default_rng((plan.seed, step)))
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        _average(averaged, weights, min(plan.average, (step + 1) / (step + 10)))
        running = float(value.detach()) if step == first else 0.98 * running + 0.02 * float(value.detach())
        if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
            _save(checkpoint, plan, weights, averaged, optimiser, schedule, step + 1)
            pace = (time.monotonic() - begun) / (step + 1 - first)
            print(f"{checkpoint.stem}: step {step + 1}/{plan.steps}  loss {running:.4f}  {pace:.2f} s/step", flush=True)
    with torch.no_grad():
        for weight, mean in zip(weights, averaged, strict=True):
            weight.copy_(mean)


def to_tensor(pictures: Pixels | NDArray[np.uint8]) -> Tensor:
    """Pictures (n, h, w, 3) in [0, 1], float32 or uint8, as a tensor (n, 3, h, w) in [-1, 1]."""
    scaled = pictures.astype(np.float32) / (255 if pictures.dtype == np.uint8 else 1)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))) * 2 - 1


def to_pixels(images: Tensor) -> Pixels:
    """The inverse of ``to_tensor``, clipped, float32."""
    array: Pixels = images.detach().float().add(1).div(2).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return array


def _average(averaged: list[Tensor], weights: list[nn.Parameter], keep: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(averaged, list(weights), 1 - keep)


def _save(
    path: Path,
    plan: Plan,
    weights: list[nn.Parameter],
    averaged: list[Tensor],
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    step: int,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        "plan": asdict(plan),
        "weights": [w.detach() for w in weights],
        "averaged": averaged,
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
    }
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def _restore(
    path: Path,
    plan: Plan,
    weights: list[nn.Parameter],
    averaged: list[Tensor],
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    if state["plan"] != asdict(plan):
        raise ValueError(f"{path}: a run with another plan ({state['plan']}) stopped here — delete the file to train afresh")
    with torch.no_grad():
        for weight, mean, saved, saved_mean in zip(weights, averaged, state["weights"], state["averaged"], strict=True):
            weight.copy_(saved)
            mean.copy_(saved_mean)
    optimiser.load_state_dict(state["optimiser"])
    schedule.load_state_dict(state["schedule"])
    return int(state["step"])
