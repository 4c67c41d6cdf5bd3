"""Functions as metrics: any callable that takes pictures, prompts and references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from objectives.errors import MetricError
from objectives.metrics.references import References


@dataclass(frozen=True)
class FunctionCall:
    """Calls a function with all pictures of a candidate at once.

    Attributes:
        function: ``(pictures, prompts, references)`` → a number, or one number a picture.
    """

    function: Callable[[Tensor, list[str], References], Any]

    def prepare(self, references: References) -> None:
        """Prepares nothing."""

    def __call__(self, images: Tensor, prompts: Sequence[str], references: References, prepared: object) -> Tensor:
        """Returns the function's values as a tensor, (n,) or (), float64.

        Raises:
            MetricError: the function returns something else.

        Example:
            >>> call = FunctionCall(lambda pictures, prompts, references: pictures.float().mean(dim=(1, 2, 3)))
            >>> call(torch.full((2, 3, 4, 4), 51, dtype=torch.uint8), ["a", "b"], References(None, (), ()), None).tolist()
            [51.0, 51.0]
        """
        found = self.function(images, list(prompts), references)
        try:
            values = torch.as_tensor(found).detach().to("cpu", torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise MetricError(f"returns {type(found).__name__}", "return a number, or one number a picture") from error
        if values.shape == (len(images),) or values.ndim == 0:
            return values
        raise MetricError(f"returns values of shape {tuple(values.shape)} for {len(images)} pictures", "return a number, or one a picture")
