"""The denoiser of a loaded pipeline as a function of its inputs: recorded, intercepted, and called outside of the pipeline's loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from optimizer.rendering.text.states import TextStates

_SAMPLE = ("sample", "hidden_states")
_POSITIONS = ("img_ids", "txt_ids")  # positions of tokens, common to all rows


@dataclass(frozen=True)
class Call:
    """One call of the denoiser.

    Attributes:
        sample: noisy latents, (rows, …).
        timestep: timestep of each row, (rows,).
        texts: text states, by argument of the denoiser, one row each.
        others: all other arguments.
    """

    sample: Tensor
    timestep: Tensor
    texts: Mapping[str, Tensor]
    others: Mapping[str, Any]

    def rows(self, rows: Tensor) -> Call:
        """Returns some rows of the call, by their positions, int64."""
        texts = {argument: states[rows] for argument, states in self.texts.items()}
        others = with_rows(self.others, len(self.sample), lambda each: each[rows])
        return Call(self.sample[rows], self.timestep[rows], texts, others)


Forward = Callable[[Call], Tensor]
"""Computes the output of the denoiser, of the shape of ``Call.sample``."""


def with_rows(arguments: Mapping[str, Any], count: int, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Returns arguments of the denoiser in which every tensor with one row a picture is changed; mappings are searched, too.

    Args:
        arguments: arguments by name.
        count: number of rows that such a tensor has.
        change: returns the changed tensor.
    """
    changed: dict[str, Any] = {}
    for name, value in arguments.items():
        each = isinstance(value, Tensor) and value.ndim > 0 and len(value) == count and name not in _POSITIONS
        changed[name] = with_rows(value, count, change) if isinstance(value, dict) else change(value) if each else value
    return changed


class LiveDenoiser:
    """The denoiser of a loaded pipeline.

    Args:
        model: U-Net or transformer.
        inputs: name in the text states → argument of the denoiser, as in ``Encoding.inputs``.
    """

    def __init__(self, model: nn.Module, inputs: Mapping[str, str]) -> None:
        self.model = model
        self._inputs = inputs
        self._signature = inspect.signature(type(model).forward)
        self._compute: Callable[[Call, Forward], Tensor] | None = None
        self._forward: Callable[..., Any] | None = None
        self._before: Callable[..., Any] | None = None

    @contextmanager
    def intercepted(self, compute: Callable[[Call, Forward], Tensor]) -> Iterator[None]:
        """Context in which every call of the denoiser is computed by a function, which may call the denoiser itself.

        Args:
            compute: gets the call and the denoiser's own computation.
        """
        self._compute = compute
        self.intercept()
        try:
            yield
        finally:
            self._release()
            self._compute = None

    def intercept(self) -> None:
        """Intercepts the calls again within ``intercepted``: at the end of each drawing, model offload puts back what it found before."""
        model, compute = self.model, self._compute
        if compute is None or (self._forward is not None and model.__dict__.get("forward") is self._forward):
            return
        self._before, inner = model.__dict__.get("forward"), model.forward

        def forward(*args: Any, **named: Any) -> Any:
            bound = self._signature.bind(model, *args, **named).arguments
            bound.pop("self")
            whole = bound.pop("return_dict", True)
            call = self._call(bound)
            found = compute(call, lambda own: inner(**self._arguments(own), return_dict=False)[0])
            return type("Output", (), {"sample": found})() if whole else (found,)

        self._forward = model.__dict__["forward"] = forward

    def _release(self) -> None:
        """Puts back the forward method from before, unless model offload has done so."""
        own = self.model.__dict__
        if own.get("forward") is self._forward:
            del own["forward"]
            own |= {"forward": self._before} if self._before is not None else {}
        self._forward = self._before = None

    def compute(self, call: Call) -> Tensor:
        """Returns the output of the denoiser, (rows, …)."""
        output: Tensor = self.model(**self._arguments(call), return_dict=False)[0]
        return output

    def save_memory(self) -> None:
        """Recomputes activations in the backward pass instead of keeping them, until ``restore`` is called."""
        model: Any = self.model
        model.enable_gradient_checkpointing()

    def restore(self) -> None:
        """Keeps activations again."""
        model: Any = self.model
        model.disable_gradient_checkpointing()

    def with_texts(self, call: Call, states: TextStates) -> Call:
        """Returns the call with other text states, one row for each of its rows."""
        texts = {argument: states[name].to(call.sample.device, call.sample.dtype) for name, argument in self._inputs.items()}
        return Call(call.sample, call.timestep, texts, call.others)

    def _call(self, arguments: dict[str, Any]) -> Call:
        named = dict(arguments)
        sample = named.pop(next(name for name in _SAMPLE if name in named))
        step = torch.as_tensor(named.pop("timestep"), device=sample.device)
        texts = {}
        for argument in self._inputs.values():
            first, _, key = argument.partition(".")
            if key:
                named[first] = dict(named[first])
                texts[argument] = named[first].pop(key)
            else:
                texts[argument] = named.pop(first)
        return Call(sample, step.expand(len(sample)), texts, named)

    def _arguments(self, call: Call) -> dict[str, Any]:
        named = {name: dict(value) if isinstance(value, dict) else value for name, value in call.others.items()}
        for argument, rows in call.texts.items():
            first, _, key = argument.partition(".")
            if key:
                named[first][key] = rows
            else:
                named[first] = rows
        name = next(name for name in _SAMPLE if name in self._signature.parameters)
        return {name: call.sample, "timestep": call.timestep, **named}
