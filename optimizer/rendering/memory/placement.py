"""The plan: where a base's models lie and where candidates go, so that both fit into the memory that is free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from optimizer.errors import UsageError
from optimizer.rendering.loading import Loading, Offload
from optimizer.rendering.memory.free import amount

# What a candidate adds in a branch, as a share of the weights, and what denoising and decoding one picture need beside them, in bytes per
# pixel at two bytes a number. These are rules of thumb: where they are wrong, the steps down from running out of memory take over.
_BRANCH, _DENOISING, _DECODING = 0.15, 1280, 2560


@dataclass(frozen=True)
class Residence:
    """Where a pipeline's models lie, and where candidates go.

    Attributes:
        device: computes.
        dtype: of the numbers that are computed with.
        offload: which models wait in the computer's memory.
        branch: candidates run beside the weights, in low-rank branches, rather than in them.
        compiled: the denoiser is compiled, so that its weights must stay where they are.
        sliced: pictures are decoded one at a time, for there is no room to decode a batch at once.
        marks: whatever else changes the last bits of a picture, in a word each.
        plan: a sentence for people that says so and why; empty where nothing was planned.
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
    """What a pipeline wants of memory.

    Attributes:
        parts: bytes of the weights, by component.
        denoiser: the component that denoises.
        pixels: of one picture.
        width: bytes of a number that is computed with.
        quantised: whether weights cannot be added to.
        batch: pictures that are drawn together.
        upcast: whether the autoencoder decodes in fp32, as Stable Diffusion XL's does, which overflows fp16.
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
        """Bytes that one picture needs beside the weights, estimated: most while it is decoded."""
        return self.pixels * _DECODING * self.width // 2

    @property
    def decoding(self) -> int:
        """Bytes that a whole batch needs while it is decoded, estimated."""
        return self.batch * self.pixels * _DECODING * (4 if self.upcast else self.width) // 2

    @property
    def greatest(self) -> int:
        """Bytes that the greatest of the models needs while it computes alone, estimated; beside quantised weights there are branches."""
        work = {self.denoiser: self.pixels * _DENOISING * self.width // 2, "vae": self.work}
        more = 1 + _BRANCH if self.quantised else 1
        return max((int(size * more) + work.get(part, 0) for part, size in self.parts.items()), default=0)


def resident(demand: Demand, free: int, loading: Loading, device: torch.device, dtype: torch.dtype) -> Residence:
    """Where models lie and candidates go.

    A candidate's sums in the weights lie beside the base's own, which come back after it: the weights twice. A branch beside them takes
    a seventh of that, and a few percent of speed. Models that wait in the computer's memory cost time at every picture.

    Args:
        demand: of the pipeline.
        free: bytes that are free on the device before the weights are there.
        loading: what was asked for; only ``auto`` is chosen here.
        device: computes.
        dtype: of the numbers that are computed with.

    Raises:
        UsageError: what was asked for does not go together.
    """
    _possible(demand, loading, device)
    offload = loading.offload if loading.offload != "auto" else _offload(demand, free, loading, device)
    branch = loading.apply == "branch" or (loading.apply == "auto" and _branched(demand, free, offload, device))
    compiled = loading.compile or loading.cuda_graphs
    held = demand.weights * (1 + _BRANCH if branch else 2) if offload == "none" else demand.parts.get("vae", 0)
    sliced = loading.vae_slicing or (device.type != "cpu" and held + demand.decoding > free)
    told = {"branch": branch, "compiled": compiled, "quantised": demand.quantised, "tiled": loading.vae_tiling}
    found = Residence(device, dtype, offload, branch, compiled, sliced, tuple(mark for mark, holds in told.items() if holds))
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
    """Whether a candidate runs in a branch: it must beside quantised weights, and does where weights do not fit twice. With offload the
    sums lie in the computer's memory."""
    if demand.quantised:
        return True
    return device.type != "cpu" and offload == "none" and 2 * demand.weights + demand.work > free


def _sentence(demand: Demand, free: int, found: Residence) -> str:
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
