"""Metrics of torchmetrics: built from their class, and called in the way that the signature of ``update`` asks for."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from objectives.errors import MetricError
from objectives.metrics.references import References

Inputs = Literal["pictures", "pairs", "sets", "texts"]
"""What a metric's ``update`` takes: pictures; pictures and targets; pictures and whether they are real; pictures and texts."""

_TEXT = {"text", "texts", "prompt", "prompts", "caption", "captions"}
_PIXELS = 1 << 22  # pixels per update of a metric that compares sets
_INSTANCE = "name an instance of it in a module of your own, or a subclass with defaults"


def build_metric(kind: type[Any]) -> Any:
    """Returns a metric that takes pictures as floats in [0, 1], if its constructor lets that be chosen.

    ``normalize=True`` and ``data_range=1.0`` are passed to constructors that have these parameters.

    Args:
        kind: class of the metric.

    Raises:
        MetricError: the constructor needs other arguments.
    """
    parameters = inspect.signature(kind).parameters.values()
    chosen: dict[str, Any] = {"data_range": 1.0, "normalize": True}
    taken = {
        p.name: chosen[p.name] for p in parameters if p.name == "data_range" or (p.name == "normalize" and isinstance(p.default, bool))
    }
    if missing := [p.name for p in _needed(parameters) if p.name not in taken]:
        raise MetricError(f"its constructor needs {', '.join(missing)}", _INSTANCE)
    return kind(**taken)


def inputs_of(update: Any) -> Inputs:
    """Returns what an ``update`` method takes, from the names and annotations of its parameters.

    Raises:
        MetricError: it takes something that a search does not have.

    Example:
        >>> def update(preds: Tensor, target: Tensor) -> None: ...
        >>> inputs_of(update)
        'pairs'
    """
    needed = [p for p in _needed(inspect.signature(update).parameters.values()) if p.name != "self"]
    if len(needed) == 2 and needed[1].name == "real":
        return "sets"
    if len(needed) == 1:
        return "pictures"
    if len(needed) == 2 and "dict" not in str(needed[1].annotation):
        return "texts" if needed[1].name in _TEXT or "str" in str(needed[1].annotation) else "pairs"
    raise MetricError(
        f"its update takes ({', '.join(p.name for p in needed)})", "wrap it in a function of pictures, prompts and references"
    )


def _needed(parameters: Any) -> list[inspect.Parameter]:
    """Returns the parameters that a call must give."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in parameters if p.default is inspect.Parameter.empty and p.kind not in variadic]


@dataclass(frozen=True)
class TorchMetricCall:
    """Calls a torchmetrics metric: picture by picture, or, for one that compares sets, with all pictures.

    Picture by picture the value does not depend on the number of prompts, and a bootstrap can resample it. If ``compute`` returns a tuple,
    such as mean and standard deviation over subsets, its first number counts; a metric of pictures alone that does so is one of sets.

    Attributes:
        metric: the metric; its state is reset by every call.
        inputs: what its ``update`` takes.
        floats: whether it takes pictures as float32 in [0, 1], instead of uint8.
    """

    metric: Any
    inputs: Inputs
    floats: bool = True

    def prepare(self, references: References) -> Mapping[str, Any] | None:
        """Returns the state of a metric that compares sets after it has seen the references, so that they are not read again; else None."""
        if self.inputs != "sets":
            return None
        with self._fresh(references.device):
            for images in references.all:
                self._update_all(images, references.device, True)
            return {name: copy.deepcopy(getattr(self.metric, name)) for name in self.metric.metric_state}

    def __call__(self, images: Tensor, prompts: Sequence[str], references: References, prepared: object) -> Tensor:
        """Returns the value of each picture, float64, (n,), or of all together, ()."""
        if isinstance(prepared, Mapping):
            return self._against_set(images, references, prepared)
        values: list[float] = []
        for index, image in enumerate(images):
            results = [self._result(self._taken(image[None], references.device), *more) for more in self._more(index, prompts, references)]
            if self.inputs == "pictures" and isinstance(results[0], tuple):
                return self._of_all(images, references.device)
            values.append(sum(map(_number, results)) / len(results))
        return torch.tensor(values, dtype=torch.float64)

    def _more(self, index: int, prompts: Sequence[str], references: References) -> list[tuple[Any, ...]]:
        """Returns the further arguments of each ``update`` that one picture takes."""
        if self.inputs == "pairs":
            return [(self._taken(target[None], references.device),) for target in references.targets(index)]
        return [([prompts[index]],)] if self.inputs == "texts" else [()]

    def _result(self, *arguments: Any) -> Any:
        with self._fresh(arguments[0].device):
            self.metric.update(*arguments)
            return self.metric.compute()

    def _of_all(self, images: Tensor, device: torch.device) -> Tensor:
        with self._fresh(device):
            self._update_all(images, device)
            return torch.tensor(_number(self.metric.compute()), dtype=torch.float64)

    def _against_set(self, images: Tensor, references: References, state: Mapping[str, Any]) -> Tensor:
        with self._fresh(references.device), _subsets_of(self.metric, len(images)):
            for name, value in state.items():
                setattr(self.metric, name, copy.deepcopy(value))
            self._update_all(images, references.device, False)
            return torch.tensor(_number(self.metric.compute()), dtype=torch.float64)

    def _update_all(self, images: Tensor, device: torch.device, *more: Any) -> None:
        few = max(1, _PIXELS // (images.shape[-2] * images.shape[-1]))
        for chunk in torch.split(images, few):
            self.metric.update(self._taken(chunk, device), *more)

    def _taken(self, images: Tensor, device: torch.device) -> Tensor:
        return images.to(device).float() / 255 if self.floats else images.to(device)

    @contextmanager
    def _fresh(self, device: torch.device) -> Iterator[None]:
        """Resets the metric, on the device, with a fixed seed for those that draw subsets; the caller's random numbers are not changed."""
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            torch.manual_seed(0)
            if self.metric.device != device:
                self.metric.to(device)
            self.metric.reset()
            yield
            self.metric.reset()


@contextmanager
def _subsets_of(metric: Any, pictures: int) -> Iterator[None]:
    """Limits the size of the subsets that a metric draws to the number of pictures while the block runs."""
    size = getattr(metric, "subset_size", None)
    if not isinstance(size, int) or size <= pictures:
        yield
        return
    metric.subset_size = pictures
    try:
        yield
    finally:
        metric.subset_size = size


def _number(result: Any) -> float:
    """Returns the number in a result: the only one, or the first of a tuple.

    Raises:
        MetricError: the result has several numbers.
    """
    found = (
        result[0] if isinstance(result, tuple) else next(iter(result.values())) if isinstance(result, dict) and len(result) == 1 else result
    )
    if isinstance(found, Tensor) and found.numel() == 1:
        return float(found)
    raise MetricError(f"returns {_described(found)}", "return one number: set its reduction to mean, or wrap it in a function")


def _described(found: Any) -> str:
    return f"values of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
