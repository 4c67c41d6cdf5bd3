"""Out of memory: the steps down from it, and how a computation is given up so that its memory is free again."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch

from optimizer.errors import TrialError

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from optimizer.rendering.loading import Offload
    from optimizer.rendering.memory.placement import Residence

P = ParamSpec("P")
T = TypeVar("T")
Note = Callable[[str], None]

_NEXT: dict[Offload, Offload] = {"none": "model", "model": "sequential"}
_WAITING: dict[Offload, str] = {"model": "idle models", "sequential": "all but the layer that computes"}
# What CUDA and other accelerators, torch's allocator on a CPU, and cuBLAS and cuDNN say, in lower case.
_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, whichever backend raised it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def attempt(action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """What the action returns, or None where it ran out of memory; other errors pass.

    By then the memory is free again: the error, whose traceback holds the tensors of every frame, is gone, and the caches are empty.
    """
    try:
        return action(*args, **kwargs)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


class Ladder:
    """The steps down for a pipeline that ran out of memory: half the batch, again and again, then its idle models off the GPU, then all
    but the layer that computes.

    A step is never taken back.

    Args:
        pipeline: its models lie on the CPU or where it computes.
        batch: pictures per forward pass to begin with.
        residence: where it computes, and with which offload it begins.
        note: is told of every step in one line.

    Attributes:
        batch: pictures per forward pass by now.
        offload: which models wait in the computer's memory by now.
    """

    def __init__(self, pipeline: DiffusionPipeline, batch: int, residence: Residence, note: Note | None) -> None:
        self.batch = batch
        self.offload: Offload = "none"
        self._pipeline, self._residence, self._note = pipeline, residence, note or (lambda line: None)
        if residence.offload != "none":
            self._settle_in(residence.offload)

    @property
    def offloaded(self) -> bool:
        """Whether models lie in the computer's memory and come to the GPU to compute."""
        return self.offload != "none"

    def smaller(self, size: int) -> bool:
        """Go on with half of a batch that was too large; returns whether there is less than it."""
        self.batch = max(1, size // 2)
        if size == 1:
            return False
        self._note(f"out of memory with batches of {size}: going on with {self.batch}")
        return True

    def relieve(self) -> None:
        """Go on with the next kind of offload; to be called while the weights are the base's, outside of inference mode.

        Raises:
            TrialError: there is no other, or no GPU that it would relieve.
        """
        following = _NEXT.get(self.offload)
        if following is None or not self._can_offload():
            raise TrialError(
                f"out of memory {self._where()}",
                remedy="end other programs that need memory, lower the resolution or the output rank, or use fp16 on a larger GPU",
            )
        self._note(f"out of memory {self._where()}: going on with {_WAITING[following]} in the computer's memory, which is slower")
        self._settle_in(following)

    def settle(self) -> None:
        """Bring all models off the GPU, as the pipeline does after every call but one that fails.

        The hook that fetches a model looks at its first parameter only, so none may be left there in part.
        """
        if self.offload == "model":
            self._pipeline.maybe_free_model_hooks()

    def _settle_in(self, offload: Offload) -> None:
        pipeline, device = self._pipeline, self._residence.device
        if offload == "model":
            pipeline.enable_model_cpu_offload(device=device)
        else:
            pipeline.remove_all_hooks()
            pipeline.to("cpu")
            pipeline.enable_group_offload(onload_device=device, offload_device=torch.device("cpu"), offload_type="leaf_level")
        self.offload = offload

    def _can_offload(self) -> bool:
        return self._residence.device.type == "cuda" and not self._residence.compiled

    def _where(self) -> str:
        if self.batch > 1:
            return "before the first picture of a batch"
        return "even with one picture at a time" + (f" and {_WAITING[self.offload]} in the computer's memory" if self.offloaded else "")
