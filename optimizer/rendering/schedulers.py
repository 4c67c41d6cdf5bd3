"""Schedulers by their names in A1111 and ComfyUI, mapped to diffusers classes as in diffusers' documentation."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import diffusers

from optimizer.errors import UsageError

SCHEDULERS: dict[str, tuple[str, dict[str, object]]] = {
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_2m_sde_karras": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
"""Name → diffusers class, and options that override the base's scheduler configuration."""


def scheduler_named(name: str, present: Any, family: str) -> Any:
    """Returns a scheduler that replaces a pipeline's own and uses its noise schedule.

    Args:
        name: name in ``SCHEDULERS``.
        present: current scheduler of the pipeline.
        family: display name of the base's family, for the error message.

    Raises:
        UsageError: the scheduler is unknown, or incompatible with the base.
    """
    if name not in SCHEDULERS:
        raise UsageError(f"there is no scheduler {name!r}", where="--scheduler", remedy=f"choose from {', '.join(SCHEDULERS)}")
    kind, changes = SCHEDULERS[name]
    chosen = getattr(diffusers, kind)
    if chosen not in (type(present), *present.compatibles):
        problem = f"{name} cannot take the place of {type(present).__name__}, which {family} draws with"
        raise UsageError(problem, where="--scheduler", remedy="leave it out")
    return chosen.from_config(present.config, **changes)


def denoiser_calls(scheduler: Any, steps: int) -> int:
    """Returns how often a scheduler has the denoiser called in a number of steps: some do so twice a step, or once more at the start."""
    timed = deepcopy(scheduler)
    shift = {"mu": 1.0} if timed.config.get("use_dynamic_shifting") else {}  # required then, and without effect on the number
    timed.set_timesteps(steps, **shift)
    return len(timed.timesteps)
