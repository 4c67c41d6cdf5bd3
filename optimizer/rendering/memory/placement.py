"""Placement plan: devices of a base's models and application of candidates, so that both fit into free memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from optimizer.errors import UsageError
from optimizer.rendering.loading import Loading, Offload
from optimizer.rendering.memory.free import amount

# Estimated memory of a candidate's branches, as a share of the weights, and of denoising and decoding one image, in bytes per pixel at
# two bytes per number. If these estimates are too low, the out-of-memory fallback steps apply.
_BRANCH, _DENOISING, _DECODING = 0.15, 1280, 2560


@dataclass(frozen=True)
class Placement:
    """Placement of a pipeline's models and of candidates.

    Attributes:
        device: device that computes.
        dtype: compute dtype.
        offload: offload mode of the models.
        branch: whether candidates run as low-rank branches in parallel to the weights, rather than added to them.
        compiled: whether the denoiser is compiled, so that its weights must stay at their addresses.
        sliced: whether images are decoded one at a time.
        marks: one-word names of other options that change the last bits of an image.
        plan: one-line description of the placement for users; empty if nothing was planned.
    """

    device: torch.device
    dtype: torch.dtype
    offload: Offload = "none"
    branch: bool = False
    compiled: bool = False
    sliced: bool = False
    marks: tuple[str, ...] = ()
    plan: str = ""


@dataclass(frozen=True)
class Demand:
    """Memory demand of a pipeline.

    Attributes:
        parts: bytes of the weights, by component.
        denoiser: name of the denoiser component.
        pixels: number of pixels of one image.
        width: bytes per number of the compute dtype.
        quantised: whether weights are quantised, so that ΔW cannot be added to them.
        batch: number of images per forward pass.
        upcast: whether the autoencoder decodes in fp32, as that of Stable Diffusion XL, which overflows fp16.
    """

    parts: Mapping[str, int]
    denoiser: str
    pixels: int
    width: int
    quantised: bool
    batch: int = 1
    upcast: bool = False

    @property
    def weights(self) -> int:
        """Bytes of all weights."""
        return sum(self.parts.values())

    @property
    def work(self) -> int:
        """Estimated peak bytes of one image in addition to the weights, reached during decoding."""
        return self.pixels * _DECODING * self.width // 2

    @property
    def decoding(self) -> int:
        """Estimated bytes for decoding a whole batch."""
        return self.batch * self.pixels * _DECODING * (4 if self.upcast else self.width) // 2

    @property
    def greatest(self) -> int:
        """Estimated bytes of the largest model while it computes alone, including branches if weights are quantised."""
        work = {self.denoiser: self.pixels * _DENOISING * self.width // 2, "vae": self.work}
        more = 1 + _BRANCH if self.quantised else 1
        return max((int(size * more) + work.get(part, 0) for part, size in self.parts.items()), default=0)


def plan_placement(demand: Demand, free: int, loading: Loading, device: torch.device, dtype: torch.dtype) -> Placement:
    """Returns the placement of models and candidates.

    Adding a candidate to the weights keeps the base's weights for restoring, so it needs the memory of the weights twice. Branches take
    about a seventh of the weights, and cost a few percent of speed. Offload costs time for every image.

    Args:
        demand: memory demand of the pipeline.
        free: free bytes on the device before the weights are loaded there.
        loading: requested loading options; only options set to ``auto`` are chosen here.
        device: device that computes.
        dtype: compute dtype.

    Raises:
        UsageError: the options are incompatible.
    """
    _possible(demand, loading, device)
    offload = loading.offload if loading.offload != "auto" else _offload(demand, free, loading, device)
    branch = loading.apply == "branch" or (loading.apply == "auto" and _branched(demand, free, offload, device))
    compiled = loading.compile or loading.cuda_graphs
    held = demand.weights * (1 + _BRANCH if branch else 2) if offload == "none" else demand.parts.get("vae", 0)
    sliced = loading.vae_slicing or (device.type != "cpu" and held + demand.decoding > free)
    told = {"branch": branch, "compiled": compiled, "quantised": demand.quantised, "tiled": loading.vae_tiling}
    found = Placement(device, dtype, offload, branch, compiled, sliced, tuple(mark for mark, holds in told.items() if holds))
    return replace(found, plan=_sentence(demand, free, found))


def _possible(demand: Demand, loading: Loading, device: torch.device) -> None:
    if demand.quantised and loading.apply == "weights":
        problem = "the base is quantised, and nothing can be added to weights of a few bits"
        raise UsageError(problem, where="--apply weights", remedy="leave it out: candidates then run in branches beside the weights")
    if loading.offload in ("model", "sequential"):
        if device.type == "cpu":
            raise UsageError("everything lies in the computer's memory anyway", where="--offload", remedy="leave it out, or use a GPU")
        if loading.compile or loading.cuda_graphs:
            remedy = "leave out one of them"
            raise UsageError("a compiled model must stay where it is", where=f"--offload {loading.offload}", remedy=remedy)


def _offload(demand: Demand, free: int, loading: Loading, device: torch.device) -> Offload:
    if device.type == "cpu" or loading.compile or loading.cuda_graphs:
        return "none"
    slim = 1.0 if loading.apply == "weights" else 0.0
    if demand.weights * (1 + max(slim, _BRANCH)) + demand.work <= free:
        return "none"
    return "model" if demand.greatest <= free else "sequential"


def _branched(demand: Demand, free: int, offload: Offload, device: torch.device) -> bool:
    """Returns whether candidates run as branches: with quantised weights, or if the weights do not fit into memory twice.

    With offload, base + ΔW is stored in CPU memory, so branches are needed only for quantised weights.
    """
    if demand.quantised:
        return True
    return device.type != "cpu" and offload == "none" and 2 * demand.weights + demand.work > free


def _sentence(demand: Demand, free: int, found: Placement) -> str:
    kind = " (some of them quantised)" if demand.quantised else ""
    where = {
        "none": f"all of them on {found.device.type}",
        "model": "those that are idle in the computer's memory",
        "sequential": "all but the layer that computes in the computer's memory, which is slow",
    }[found.offload]
    applied: dict[bool, str] = {True: "in branches beside the weights", False: "in the weights"}
    return (
        f"memory: {amount(demand.weights)} of weights in {_name(found.dtype)}{kind}, {amount(free)} free on "
        f"{found.device.type}: {where}; candidates {applied[found.branch]}" + ("; pictures decoded one at a time" if found.sliced else "")
    )


def _name(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}.get(dtype, str(dtype).removeprefix("torch."))
