"""Compositions: drawing with several sources at once by combining the model's outputs at every step.

v = v_base + Σ gₖ · aₖ · (vₖ − v_base), where vₖ is the output with source k alone (Composable Diffusion, arXiv 2206.01714, with LoRAs in
place of prompts; LoRA Composite, arXiv 2402.16843), and aₖ is 1, or the share of source k at each place, so that sources do not draw over
each other. The sources share no weight; no file can hold it. It shows what a merge should draw. Guidance is linear in the outputs, so
combining them before guidance equals combining guided outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from optimizer.calibration.live.denoiser import Call, Forward, LiveDenoiser
from optimizer.calibration.live.routed_modules import RoutedModules
from optimizer.rendering.candidates.candidate import LiveCandidate
from optimizer.rendering.prompts import Prompt, Role
from optimizer.rendering.text.states import EncodedPrompts, TextStates

Mode = Literal["sum", "local", "average", "switch"]

STYLE_FLOOR = 1 / 3
"""Smallest share of a style at every place: it belongs on what the other sources draw, too."""

Asked = Callable[[Sequence[Prompt]], Tensor]
"""Returns which sources prompts ask for, bool, (n, K)."""

Watch = Callable[[Sequence[int], int, Call, Tensor], None]
"""Called after each call of the denoiser with the positions of the prompts, the number of the step, the call and its combined output."""


@dataclass(frozen=True)
class Composition:
    """How outputs are combined.

    Attributes:
        gains: gain of each source, ≥ 0.
        mode: ``sum`` adds what all sources change; ``local`` does so with the shares of ``local_shares``; ``average`` divides it by
            their number (LoRA Composite); ``switch`` lets one source after the other draw a step (LoRA Switch, arXiv 2402.16843).
        windows: first and last share of the steps, in [0, 1], in which each source draws; empty for all steps.
        floors: smallest share of each source in the mode ``local``, in [0, 1]; empty for 0.
    """

    gains: tuple[float, ...]
    mode: Mode = "sum"
    windows: tuple[tuple[float, float], ...] = ()
    floors: tuple[float, ...] = ()

    @classmethod
    def teacher(cls, roles: Sequence[Role]) -> Composition:
        """Returns the composition of sources of these roles that merges are solved on."""
        return cls((1.0,) * len(roles), "local", floors=tuple(STYLE_FLOOR if role == "style" else 0.0 for role in roles))

    def weights(self, asked: Tensor, step: int, steps: int) -> Tensor:
        """Returns the factor on what each source changes, (n, K).

        Args:
            asked: whether a prompt asks for a source, bool, (n, K).
            step: number of the step, from 0.
            steps: number of all steps.
        """
        share = (step + 0.5) / steps
        active = torch.tensor([not self.windows or self.windows[k][0] <= share < self.windows[k][1] for k in range(len(self.gains))])
        wanted = asked & active
        if self.mode == "switch":
            wanted = wanted & (wanted.cumsum(dim=1) == step % wanted.sum(dim=1, keepdim=True).clamp(min=1) + 1)
        weights = wanted * torch.tensor(self.gains)
        return weights / wanted.sum(dim=1, keepdim=True).clamp(min=1) if self.mode == "average" else weights


class ComposedCandidate(LiveCandidate):
    """A composition, drawn as a candidate.

    Args:
        composition: how outputs are combined.
        modules: branches of the sources.
        denoiser: denoiser of the pipeline.
        asked: returns which sources prompts ask for, bool, (n, K).
        steps: returns the number of denoiser calls of a drawing.
        watch: called after each call of the denoiser.
    """

    def __init__(
        self,
        composition: Composition,
        modules: RoutedModules,
        denoiser: LiveDenoiser,
        asked: Asked,
        steps: Callable[[], int],
        watch: Watch | None = None,
    ) -> None:
        self._composition, self._modules, self._denoiser = composition, modules, denoiser
        self._asked_of, self._steps, self._watch = asked, steps, watch
        self._asked = torch.zeros(0, len(composition.gains), dtype=torch.bool)
        self._encoded: list[EncodedPrompts] = []
        self._rows: Sequence[int] = ()
        self._step = 0

    @contextmanager
    def applied(self) -> Iterator[None]:
        with self._modules.installed(), self._denoiser.intercepted(self._compute):
            yield

    def encode(self, prompts: Sequence[Prompt], encoded: Callable[[], EncodedPrompts]) -> EncodedPrompts:
        """Encodes the prompts by the base's text encoders, and by those of each source."""
        self._asked = self._asked_of(prompts)
        base = encoded()
        self._encoded = [base]
        for source in range(len(self._composition.gains)):
            routing = self._modules.alone(source)
            if any(path.startswith("text_encoder") for path in routing):
                with self._modules.at(routing):
                    self._encoded.append(encoded())
            else:
                self._encoded.append(base)
        return base

    def begin(self, rows: Sequence[int]) -> None:
        self._rows, self._step = rows, 0
        self._denoiser.intercept()

    def _compute(self, call: Call, forward: Forward) -> Tensor:
        weights = self._composition.weights(self._asked[list(self._rows)], self._step, self._steps())
        weights = weights.repeat(len(call.sample) // len(weights), 1).to(call.sample.device, torch.float32)
        base = forward(call)
        added = base.new_zeros(len(weights.T), *base.shape, dtype=torch.float32)
        for source, own in enumerate(weights.T):
            rows = own.nonzero()[:, 0]
            if len(rows):
                with self._modules.at(self._modules.alone(source)):
                    output = forward(self._with_texts(call, source).rows(rows))
                added[source, rows] = output.float() - base[rows].float()
        factors = weights.T.reshape(*weights.T.shape, *[1] * (base.ndim - 1))
        if self._composition.mode == "local":
            factors = factors * local_shares(added, weights.T > 0, len(self._rows), self._composition.floors)
        combined = (base.float() + (factors * added).sum(dim=0)).to(base.dtype)
        if self._watch:
            self._watch(self._rows, self._step, call, combined)
        self._step += 1
        return combined

    def _with_texts(self, call: Call, source: int) -> Call:
        states, blanks = self._encoded[source + 1]
        if states is self._encoded[0][0]:
            return call
        asked = [states[i] for i in self._rows]
        more = len(call.sample) // len(asked) - 1  # sets of rows beside one; perturbed-attention guidance has two
        rows = [blanks[i] for i in self._rows] + asked * more if more else asked
        return self._denoiser.with_texts(call, stacked(rows))


def local_shares(added: Tensor, acting: Tensor, pictures: int, floors: Sequence[float] = ()) -> Tensor:
    """Returns the share of what each source adds that counts at each place, (K, rows, …) with one channel, in [0, 1].

    Where one source acts strongly, the others stand back: there they do not know what is drawn, and would draw over it. With sₖ the
    square of what source k adds, averaged over its neighbourhood, over its mean in the picture, the share aₖ is min(1, n · sₖ² / Σ sⱼ²)
    for n sources that act, and with a floor fₖ it is fₖ + (1 − fₖ)·aₖ.

    Args:
        added: what each source adds, (K, rows, channels, height, width) or (K, rows, tokens, channels).
        acting: whether a source acts in a row, bool, (K, rows).
        pictures: number of pictures; with classifier-free guidance each has two rows, the negative ones first, which have equal shares.
        floors: smallest share of each source where it acts, in [0, 1]; empty for 0.
    """
    plane = added.ndim == 5
    repeats = added.shape[1] // pictures
    squares = added.square().mean(dim=2 if plane else -1, keepdim=True)
    squares = squares.reshape(len(added), repeats, pictures, *squares.shape[2:]).mean(dim=1)
    if plane:
        squares = F.avg_pool2d(squares.flatten(0, 1), 3, 1, 1, count_include_pad=False).reshape(squares.shape)
    act = acting[:, :pictures].reshape(-1, pictures, *[1] * (squares.ndim - 2))
    means = squares.flatten(2).mean(dim=2).reshape(act.shape).clamp(min=1e-12)
    strengths = act * (squares / means).square()
    shares: Tensor = (act.sum(dim=0) * strengths / strengths.sum(dim=0).clamp(min=1e-12)).clamp(max=1)
    if floors:
        least = torch.tensor(floors, device=shares.device).reshape(-1, *[1] * (shares.ndim - 1))
        shares = act * (least + (1 - least) * shares)
    return shares.repeat(1, repeats, *[1] * (squares.ndim - 2))


def stacked(states: Sequence[TextStates]) -> TextStates:
    """Returns the rows of several texts as one, for texts of equal length."""
    return {name: torch.cat([one[name] for one in states]) for name in states[0]}
