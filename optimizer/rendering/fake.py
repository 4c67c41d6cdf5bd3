"""Fake renderer: computes images without a diffusion model, for tests of everything around it.

An image is a smooth random field determined by prompt and seed, to which ΔW adds further fixed fields. The coefficient of each field is
linear in every module's ΔW: the bilinear form uᵀ·ΔW·v = (uᵀ·up)(down·v) for fixed random signs u and v. It does not depend on the
factorisation, and no matrix of the weight's size is formed. A weighted sum of sources changes an image by the weighted sum of their
changes, until pixel values are clipped, as in a merge that is too strong.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from optimizer.adapters import Adapter, Factors
from optimizer.errors import TrialError
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.rendering.fake_spec import FakeSpec
from optimizer.rendering.prompts import Prompt
from optimizer.rendering.settings import RenderSettings

_FIELDS = 16  # number of fields that a ΔW can add to an image
_GRID = 4  # cells per side of a field before interpolation
_BASE, _MOVED, _GRAIN = 0.15, 0.2, 0.02  # standard deviations of the base image, of a source's change, and of pixel noise
_SAME = 1e-2  # distance, in units of strength, below which a candidate counts as a source
_DIGITS = 3  # decimal digits that decide whether a candidate fails, far above rounding differences between machines


class FakeRenderer:
    """Renderer without a model; equal sources, prompts and candidates give identical bytes in every batch and process.

    Strength is measured relative to the strongest source registered with ``fit_adapter``, so that this source alone changes images visibly,
    independently of the scale of its weights. Before the first source the unit is 1.

    Args:
        spec: latency, failure rates and image size.
        settings: batch size, and a resolution that overrides the size in ``spec``; other settings have no effect.
        accelerator: change that every image has, beside that of the candidate; None for none.
    """

    def __init__(self, spec: FakeSpec, settings: RenderSettings, accelerator: Adapter | None = None) -> None:
        self.spec, self.settings = spec, settings.completed(20, 7.0)
        self._sources: list[Tensor] = []
        self._standing = torch.zeros(_FIELDS, dtype=torch.float64) if accelerator is None else _change(accelerator)
        self._size = settings.resolution or spec.size

    @property
    def plan(self) -> str:
        """Empty text: no placement is planned."""
        return ""

    @property
    def device(self) -> torch.device:
        """Device that computes, always the CPU."""
        return torch.device("cpu")

    @property
    def picture_size(self) -> tuple[int, int]:
        """Image size (height, width), in pixels."""
        return self._size, self._size

    @property
    def precision(self) -> str:
        """Constant ``cpu torch.float64``: arithmetic is in double precision, rounded to 8 bits."""
        return "cpu torch.float64"

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Empty mapping: there is no model."""
        return {}

    def fit_adapter(self, adapter: Adapter) -> Adapter:
        """Registers and returns the source; every shape fits, and a registered source never fails to render."""
        self._sources.append(_change(adapter))
        return adapter

    def special(self, prompts: Sequence[Prompt]) -> bool:
        """Returns False: texts only seed the image."""
        return False

    def render(self, prompts: Sequence[Prompt], candidate: Candidate | None = None, *, tick: Callable[[int], None] | None = None) -> Tensor:
        """Renders every prompt.

        Args:
            prompts: prompts to render.
            candidate: adapter, or None for the base alone; full models are not supported.
            tick: called with the number of images finished so far.

        Returns:
            Images, uint8, (n, 3, size, size).

        Raises:
            TrialError: the merge is in the share ``fail``, which is deterministic and never includes a source.
            torch.OutOfMemoryError: the merge is in the share ``oom``, which is deterministic and never includes a source.
        """
        assert candidate is None or isinstance(candidate, Adapter)
        change = (torch.zeros(_FIELDS, dtype=torch.float64) if candidate is None else _change(candidate)) / self._unit
        drawn, chunks = change + self._standing / self._unit, list[Tensor]()
        for start in range(0, len(prompts), self.settings.batch):
            part = prompts[start : start + self.settings.batch]
            time.sleep(self.spec.latency * len(part) / len(prompts))
            self._fail_perhaps(change, part)
            chunks.append(torch.stack([self._picture(prompt, drawn) for prompt in part]))
            if tick:
                tick(start + len(part))
        return torch.cat(chunks)

    @property
    def _unit(self) -> float:
        """Unit of strength: the largest root mean square of a source's field coefficients, or 1."""
        return max((float(source.square().mean().sqrt()) for source in self._sources), default=1.0) or 1.0

    def _picture(self, prompt: Prompt, change: Tensor) -> Tensor:
        """Returns the image of a prompt, uint8, (3, size, size)."""
        generator = torch.Generator().manual_seed(prompt.noise_seed)
        drawn = _BASE * _smooth(torch.randn(1, 3, _GRID, _GRID, generator=generator, dtype=torch.float64), self._size)[0]
        grain = _GRAIN * torch.randn(3, self._size, self._size, generator=generator, dtype=torch.float64)
        moved = _MOVED / math.sqrt(_FIELDS) * torch.einsum("k,kchw->chw", change * _emphasis(prompt.text), _fields(self._size))
        return ((0.5 + drawn + grain + moved).clamp(0, 1) * 255).round().to(torch.uint8)

    def _fail_perhaps(self, change: Tensor, prompts: Sequence[Prompt]) -> None:
        lot = self._lot(change)
        if lot < self.spec.fail:
            first, count = prompts[0], len(prompts)
            raise TrialError(
                f"{count} of {count} pictures hold NaN, the first is {first.text!r} with seed {first.seed}",
                remedy="lower fail in the fake base's settings",
            )
        if lot < self.spec.fail + self.spec.oom:
            raise torch.OutOfMemoryError("fake: out of memory")

    def _lot(self, change: Tensor) -> float:
        """Returns a pseudo-random number in [0, 1) that depends only on the change; 1 for a source or the base alone."""
        known = [torch.zeros_like(change), *(source / self._unit for source in self._sources)]
        if any(float((change - other).abs().max()) < _SAME for other in known):
            return 1.0
        digits = (change * 10**_DIGITS).round().long().tolist()
        return int.from_bytes(_digest(str(digits))[:6], "big") / 2**48


def _change(adapter: Adapter) -> Tensor:
    """Returns Σ over modules of uᵀ·ΔW·v for every field's u and v, (fields,), float64."""
    total = torch.zeros(_FIELDS, dtype=torch.float64)
    for path, factors in adapter.modules.items():
        total += _coefficients(path, factors)
    return total


def _coefficients(path: str, factors: Factors) -> Tensor:
    left, right = _signs(path, len(factors.up), factors.down.shape[1])
    up, down = factors.up.cpu().double(), factors.down.cpu().double()
    return factors.scale * ((left.double() @ up) * (right.double() @ down.T)).sum(dim=1)


@cache
def _signs(path: str, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Returns u and v of a module, ±1, int8, (fields, rows) and (fields, columns)."""
    signs = torch.randint(0, 2, (_FIELDS, rows + columns), generator=_generator(f"signs {path}"), dtype=torch.int8) * 2 - 1
    return signs[:, :rows], signs[:, rows:]


@cache
def _fields(size: int) -> Tensor:
    """Returns the fields that a change can add to an image, float64, (fields, 3, size, size)."""
    return _smooth(torch.randn(_FIELDS, 3, _GRID, _GRID, generator=_generator("fields"), dtype=torch.float64), size)


@cache
def _emphasis(text: str) -> Tensor:
    """Returns the strength of each field in images of a prompt, 0.75 to 1.25, float64, (fields,)."""
    return 0.75 + 0.5 * torch.rand(_FIELDS, generator=_generator(f"emphasis {text}"), dtype=torch.float64)


def _smooth(cells: Tensor, size: int) -> Tensor:
    return F.interpolate(cells, size=(size, size), mode="bilinear", align_corners=True)


def _generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(_digest(name)[:8], "big") >> 1)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
