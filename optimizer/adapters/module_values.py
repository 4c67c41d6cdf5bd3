"""Checks the tensors of one module and converts them to factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from optimizer.adapters.base_dependent.base_weights import BaseWeights
from optimizer.adapters.base_dependent.kinds import base_kind, change
from optimizer.adapters.expand import BrokenModule, dense_factors, expand
from optimizer.adapters.factors import Factors
from optimizer.adapters.files.container import Header
from optimizer.adapters.files.declared_alphas import NOTHING, Declared
from optimizer.adapters.fusing import split_fused
from optimizer.adapters.names.targets import Target
from optimizer.errors import AdapterError

_TRAIN_AGAIN = "the file is damaged: get it again, or use another checkpoint of the training"
_WHOLE_NUMBERS = (".alpha", ".on_input")

Names = Mapping[str, str]
"""Suffix → tensor name, for the tensors of one module."""


@dataclass(frozen=True)
class File:
    """An open adapter file with its declared alphas and its base model.

    Attributes:
        header: header of the file.
        tensors: tensor name → tensor.
        declared: part → declared alphas and settings.
        base: base model weights, required if a module depends on them.
    """

    header: Header
    tensors: Mapping[str, Tensor]
    declared: Mapping[str, Declared]
    base: BaseWeights | None

    def factors(self, target: Target, names: Names) -> dict[str, Factors]:
        """Returns canonical path → factors for the modules of one target.

        Raises:
            AdapterError: a value or a shape is invalid.
            BaseModelError: the base model lacks the module.
        """
        values = {suffix: self.tensors[name] for suffix, name in names.items()}
        for suffix, value in values.items():
            self._check(value, names[suffix])
        try:
            factors = self._factors(target, names, values)
        except BrokenModule as broken:
            raise self._wrong(broken.problem, names.get(broken.suffix, target.name)) from broken
        try:
            return split_fused(factors, target.paths, target.rows, target.swapped)
        except ValueError as error:
            raise self._wrong(str(error), next(iter(names.values()))) from error

    def _factors(self, target: Target, names: Names, values: dict[str, Tensor]) -> Factors:
        declared = self.declared.get(target.part, NOTHING)
        if "oft_blocks" in values:  # here alpha is the constraint, not the numerator of the scale
            return self._with_base(target, values, float)
        if "alpha" in values:
            alpha_of: Callable[[int], float] = partial(_given, self._alpha(values.pop("alpha"), names["alpha"]))
        else:
            alpha_of = partial(declared.alpha_of, target.name)
        if base_kind(values):
            return self._with_base(target, values, alpha_of)
        if declared.settings.get("use_dora"):
            raise BrokenModule(next(iter(values)), "belongs to a DoRA, as the file's settings say, and its magnitude is missing")
        return declared.with_peft_scale(target.name, values, expand(target.paths[0], values, alpha_of))

    def _with_base(self, target: Target, values: Mapping[str, Tensor], alpha_of: Callable[[int], float]) -> Factors:
        assert self.base is not None  # guaranteed by load_adapter
        settings = self.declared.get(target.part, NOTHING).settings
        if "oft_R" in values and not settings:
            raise BrokenModule("oft_R", "stands for different rotations, which only the adapter_config.json beside the file tells apart")
        weight, bias = self.base.weight(target), self.base.has_bias(target)
        return dense_factors(change(target.paths[0], values, weight, alpha_of, has_bias=bias, settings=settings))

    def _check(self, value: Tensor, tensor: str) -> None:
        if value.numel() == 0:
            raise self._wrong(f"has no elements: shape {tuple(value.shape)}", tensor)
        if not value.is_floating_point():
            if tensor.endswith(_WHOLE_NUMBERS):
                return
            raise self._wrong(f"holds {value.dtype}, not floating-point numbers", tensor, remedy="use an unquantised file")
        # A finite sum implies that every value is finite and is much faster to compute; the sum may overflow, so values are checked then.
        numbers = value if value.dtype.itemsize in (2, 4) else value.float()
        if not bool(torch.isfinite(numbers.sum(dtype=torch.float32))) and (bad := int((~torch.isfinite(numbers)).sum())):
            raise self._wrong(f"{bad} of {value.numel()} values are NaN or infinite", tensor)

    def _alpha(self, value: Tensor, tensor: str) -> float:
        if value.numel() != 1:
            raise self._wrong(f"is not one number: shape {tuple(value.shape)}", tensor)
        alpha = float(value.reshape(()))
        if alpha == 0:
            problem = "is 0, which sd-scripts reads as alpha = rank and other tools as no change at all"
            raise self._wrong(problem, tensor, remedy="set it to what the training used")
        if alpha < 0:
            raise self._wrong(f"is {alpha:g}, and no trainer writes a negative one", tensor, remedy="set it to what the training used")
        return alpha

    def _wrong(self, problem: str, tensor: str, *, remedy: str = _TRAIN_AGAIN) -> AdapterError:
        return AdapterError(problem, file=self.header.path, key=tensor, remedy=remedy)


def _given(alpha: float, rank: int) -> float:
    return alpha
