"""Out-of-memory handling: fallback steps, and release of the memory of a failed computation."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch

from optimizer.errors import TrialError

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    from optimizer.rendering.loading import Offload
    from optimizer.rendering.memory.placement import Placement

P = ParamSpec("P")
T = TypeVar("T")
Note = Callable[[str], None]

_NEXT: dict[Offload, Offload] = {"none": "model", "model": "sequential"}
_WAITING: dict[Offload, str] = {"model": "idle models", "sequential": "all but the layer that computes"}
# Messages of CUDA and other accelerators, torch's CPU allocator, cuBLAS and cuDNN, in lower case.
_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error means out of memory, for any backend."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def attempt(action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Returns the result of the action, or None if it ran out of memory; other errors propagate.

    In that case the memory is released before returning: the exception, whose traceback references tensors, is dropped and caches are
    emptied.
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


class MemoryFallback:
    """Fallback steps of a pipeline that ran out of memory.

    The batch is halved repeatedly, then idle models are offloaded to the CPU, then all layers except the active one. A step is never
    reverted.

    Args:
        pipeline: pipeline whose models are on the CPU or on the computing device.
        batch: initial number of images per forward pass.
        placement: placement, with device and initial offload.
        note: called with one line for each step.

    Attributes:
        batch: current number of images per forward pass.
        offload: current offload mode.
    """

    def __init__(self, pipeline: DiffusionPipeline, batch: int, placement: Placement, note: Note | None) -> None:
        self.batch = batch
        self.offload: Offload = "none"
        self._pipeline, self._placement, self._note = pipeline, placement, note or (lambda line: None)
        if placement.offload != "none":
            self._settle_in(placement.offload)

    @property
    def offloaded(self) -> bool:
        """Whether models are stored in CPU memory and moved to the GPU to compute."""
        return self.offload != "none"

    def smaller(self, size: int) -> bool:
        """Sets the batch to half of a size that was too large; returns False if the size was already 1."""
        self.batch = max(1, size // 2)
        if size == 1:
            return False
        self._note(f"out of memory with batches of {size}: going on with {self.batch}")
        return True

    def relieve(self) -> None:
        """Switches to the next offload mode; must be called with the base's weights restored and outside inference mode.

        Raises:
            TrialError: no further offload mode exists, the device is not a GPU, or the model is compiled.
        """
        following = _NEXT.get(self.offload)
        if following is None or not self._can_offload():
            raise TrialError(
                f"out of memory {self._where()}",
                remedy="end other programs that need memory, lower the resolution or the output rank, or use fp16 on a larger GPU",
            )
        self._note(f"out of memory {self._where()}: going on with {_WAITING[following]} in the computer's memory, which is slower")
        self._settle_in(following)

    def offload_idle(self, keep: Sequence[str] = ()) -> bool:
        """Offloads idle models without having run out of memory here; returns False if models are offloaded already or cannot be.

        It must be called with the base's weights restored and outside inference mode.

        Args:
            keep: components that stay on the device.
        """
        if self.offloaded or not self._can_offload():
            return False
        self._exclude(keep)
        self._settle_in("model")
        return True

    def keep(self, components: Sequence[str]) -> None:
        """Has components stay on the device from now on if idle models are offloaded; layer by layer, everything is offloaded."""
        if self.offload == "model" and self._exclude(components):
            self._settle_in("model")

    def _exclude(self, components: Sequence[str]) -> bool:
        """Excludes components from model offload; returns False if they were."""
        pipeline = self._pipeline
        more = [name for name in components if name not in pipeline._exclude_from_cpu_offload]
        # diffusers excludes only models that are not in this order, in which every model is moved away when the next one computes.
        ordered: str = pipeline.model_cpu_offload_seq
        pipeline.model_cpu_offload_seq = "->".join(name for name in ordered.split("->") if name not in more)
        pipeline._exclude_from_cpu_offload = [*pipeline._exclude_from_cpu_offload, *more]
        return bool(more)

    def settle(self) -> None:
        """Moves all models off the GPU, as the pipeline does after every successful call.

        The offload hook checks only the first parameter of a model, so no model may stay partly on the GPU.
        """
        if self.offload == "model":
            self._pipeline.maybe_free_model_hooks()

    def _settle_in(self, offload: Offload) -> None:
        pipeline, device = self._pipeline, self._placement.device
        if offload == "model":
            pipeline.enable_model_cpu_offload(device=device)
        else:
            pipeline.remove_all_hooks()
            pipeline.to("cpu")
            pipeline.enable_group_offload(onload_device=device, offload_device=torch.device("cpu"), offload_type="leaf_level")
        self.offload = offload

    def _can_offload(self) -> bool:
        return self._placement.device.type == "cuda" and not self._placement.compiled

    def _where(self) -> str:
        if self.batch > 1:
            return "before the first picture of a batch"
        return "even with one picture at a time" + (f" and {_WAITING[self.offload]} in the computer's memory" if self.offloaded else "")
