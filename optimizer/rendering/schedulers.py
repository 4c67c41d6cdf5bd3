"""Schedulers by the names that people know from A1111 and ComfyUI, as diffusers' documentation matches them to its classes."""

from __future__ import annotations

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
"""Name → diffusers' class, and what is different from the base's own configuration."""


def scheduler_named(name: str, present: Any, family: str) -> Any:
    """A scheduler in the place of a pipeline's own, with its noise schedule.

    Args:
        name: one of ``SCHEDULERS``.
        present: the pipeline's own.
        family: of the base, for the message.

    Raises:
        UsageError: there is no such scheduler, or the base was not trained for it.
    """
    if name not in SCHEDULERS:
        raise UsageError(f"there is no scheduler {name!r}", where="--scheduler", remedy=f"choose from {', '.join(SCHEDULERS)}")
    kind, changes = SCHEDULERS[name]
    chosen = getattr(diffusers, kind)
    if chosen not in (type(present), *present.compatibles):
        problem = f"{name} cannot take the place of {type(present).__name__}, which {family} draws with"
        raise UsageError(problem, where="--scheduler", remedy="leave it out")
    return chosen.from_config(present.config, **changes)
