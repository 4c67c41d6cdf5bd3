"""Ablation of distillation: one choice changed at a time, on the groups that it was developed on.

Beside the pictures each variant tells its *held-out error*: the mean squared difference from the composition's outputs along trajectories
of prompts that were not trained on, relative to that of the base, for each set of sources that prompts ask for. Of few pictures it tells
variants apart better than probes do, which read most pictures as all or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.solving.contestants import Bench
from benchmarks.solving.measuring import measured
from benchmarks.solving.rows import Row
from optimizer.calibration.closed_form import groups, solved
from optimizer.calibration.compositions import STYLE_FLOOR, Composition, Mode
from optimizer.calibration.live.model import LiveModel
from optimizer.calibration.live.routed_modules import Routing
from optimizer.calibration.prompts import TRAINED
from optimizer.calibration.training import Training, mean_loss, train
from optimizer.calibration.trajectories import STEPS, Points, record
from optimizer.calibration.truncation import truncated
from optimizer.merging import NO_TEXTS, Recipe, Router, correction_of, with_correction
from optimizer.merging.methods.solved import CORRECTION, TRAIN_STEPS


@dataclass(frozen=True)
class Variant:
    """What is changed against the defaults.

    Attributes:
        mode: how the teacher combines the sources.
        gain: gain of every source in the teacher.
        floor: smallest share of a style at every place, with the mode ``local``.
        styles_from: share of the steps after which styles draw.
        own, joint: numbers of prompts.
        steps: greatest number of sampling steps of a trajectory.
        start: weight of every source at the start, or ``ssr`` for that solution.
        correction: rank of the correction beside the sources, which starts at 0.
        rank: greatest rank of the merge; None for Σr.
        by_outputs: whether truncation to ``rank`` weighs by activations; otherwise it is the plain one of ΔW.
        training: fields of the training.
        teacher_only: whether the composition itself is drawn, and nothing is solved.
    """

    mode: Mode = "local"
    gain: float = 1.0
    floor: float = STYLE_FLOOR
    styles_from: float = 0.0
    own: int = TRAINED
    joint: int = TRAINED
    steps: int = STEPS
    start: float | str = 0.8
    correction: int = int(CORRECTION.start)
    rank: int | None = None
    by_outputs: bool = False
    training: Mapping[str, Any] = field(default_factory=dict)
    teacher_only: bool = False


_TRAIN_STEPS = int(TRAIN_STEPS.start)
_HELD_OUT, _HELD_OUT_PROMPTS, _WHOLE = 90_000, 16, 1000

VARIANTS: dict[str, Variant] = {
    "default": Variant(),
    "teacher: sum": Variant("sum"),
    "teacher: average": Variant("average"),
    "teacher: switch": Variant("switch"),
    "teacher: gain 1.2": Variant(gain=1.2),
    "teacher: no floor of styles": Variant(floor=0.0),
    "teacher: styles late": Variant(styles_from=0.3),
    "prompts: 16 and 24": Variant(own=16, joint=24),
    "prompts: 64 and 32": Variant(own=64, joint=32),
    "prompts: 48 and 48, 10 steps": Variant(own=48, joint=48, steps=10),
    "trajectories of 10 steps": Variant(steps=10),
    "router: diagonal": Variant(correction=0, training={"diagonal": True, "rate": 0.03}),
    "start: stack": Variant(start=1.0),
    "start: ssr": Variant(start="ssr"),
    "text encoder: as it starts": Variant(training={"texts": False}),
    "correction: 0": Variant(correction=0),
    "correction: 32": Variant(correction=32),
    "rank 16": Variant(rank=16),
    "rank 16, weighted by activations": Variant(rank=16, by_outputs=True),
    "half as long": Variant(training={"steps": _TRAIN_STEPS // 2}),
    "twice as long": Variant(training={"steps": 2 * _TRAIN_STEPS}),
    "rate 0.003": Variant(training={"rate": 0.003}),
    "composition": Variant(teacher_only=True),
    "composition, sum": Variant("sum", teacher_only=True),
    "composition, no floor of styles": Variant(floor=0.0, teacher_only=True),
    "composition, floor of styles 1/2": Variant(floor=0.5, teacher_only=True),
    "composition, styles in full": Variant(floor=1.0, teacher_only=True),
    "composition, gain 1.2": Variant(gain=1.2, teacher_only=True),
    "composition, switch": Variant("switch", teacher_only=True),
}
"""Name → variant, as the tables call them."""


@dataclass(frozen=True)
class _Ablation:
    """Variants on one group and seed.

    Attributes:
        bench: group of sources on the loaded base.
        seed: seed of prompts and training.
        drawn: points to train on that an earlier variant has drawn, by what they depend on.
    """

    bench: Bench
    seed: int
    drawn: dict[tuple[Any, ...], Points] = field(default_factory=dict)

    @cached_property
    def held_out(self) -> Points:
        """Points of the composition on prompts that nothing is trained on."""
        count = _HELD_OUT_PROMPTS
        prompts = self.bench.prompts_of(_HELD_OUT + self.seed, count, count).prompts
        return record(self.bench.live, self.bench.live.teacher, prompts, steps=_WHOLE)

    def points(self, variant: Variant) -> Points:
        """Returns the points that a variant is trained on."""
        teacher, live = _teacher(variant, self.bench), self.bench.live
        key = (teacher, variant.own, variant.joint, variant.steps)
        if key not in self.drawn:
            prompts = self.bench.prompts_of(self.seed, variant.own, variant.joint).prompts
            self.drawn[key] = record(live, teacher, prompts, steps=variant.steps)
        return self.drawn[key]


def run_ablation(bench: Bench, seed: int, names: Sequence[str]) -> None:
    """Records the rows of some variants on one group, and prints each. Seconds are without drawing that an earlier variant has done."""
    ablation = _Ablation(bench, seed)
    for name in names:
        method = f"{name} (ablation)"
        if not bench.rows.has(bench.group, method, seed):
            row = _run(ablation, method, VARIANTS[name])
            print(
                f"{'+'.join(bench.group)} seed {seed}: {name}, {row.seconds:.0f} s, {row.told}",
                flush=True,
            )


def _errors(bench: Bench, model: LiveModel, points: Points, routing: Routing) -> dict[str, float]:
    """Returns the error of each set of sources that prompts ask for, relative to the base's."""
    found = {}
    for asked in torch.unique(points.asked, dim=0):
        rows = (points.asked[points.prompt] == asked).all(dim=1).nonzero()[:, 0]
        names = "+".join(name for name, one in zip(bench.group, asked.tolist(), strict=True) if one)
        found[names] = round(mean_loss(model, points, rows, routing) / mean_loss(model, points, rows, {}), 3)
    return found


def _teacher(variant: Variant, bench: Bench) -> Composition:
    styles = [source.subject.role == "style" for source in bench.sources]
    windows = tuple((variant.styles_from if style else 0.0, 1.0) for style in styles) if variant.styles_from else ()
    floors = tuple(variant.floor if style else 0.0 for style in styles)
    return Composition((variant.gain,) * len(styles), variant.mode, windows, floors)


def _run(ablation: _Ablation, method: str, variant: Variant) -> Row:
    bench, seed = ablation.bench, ablation.seed
    if variant.teacher_only:
        row = Row(bench.group, method, seed, bench.each)
        bench.rows.record(row, bench.draw(bench.live.composed(_teacher(variant, bench)), seed))
        return row
    held_out = ablation.held_out
    (model, routing, loss), seconds, memory = measured(lambda: _distilled(ablation, variant))
    texts = bench.live.untouched_texts if variant.correction else NO_TEXTS
    sources = Router.identity(with_correction(bench.adapters, variant.correction, texts)).sources
    router = Router(sources, model.modules.ranks, routing, texts)
    ones = (1.0,) * len(bench.group)
    recipe = Recipe(method="distill", weights=ones, correction=variant.correction, rank=variant.rank, truncation="delta")
    row = Row(bench.group, method, seed, bench.each, seconds, memory, {"loss": loss, "held_out": _errors(bench, model, held_out, routing)})
    bench.rows.record(row, bench.draw(bench.routed(recipe, router), seed), router.serialised())
    return row


def _distilled(ablation: _Ablation, variant: Variant) -> tuple[LiveModel, Routing, float]:
    """Returns the live model with the correction, the router and the loss at the end."""
    plain, points = ablation.bench.live, ablation.points(variant)
    correction = correction_of(ablation.bench.adapters, variant.correction, plain.untouched_texts) if variant.correction else None
    model = plain.corrected(correction) if correction else plain
    found = groups(model, points)
    moments = {path: torch.stack([group.moments[path] for group in found]).mean(dim=0) for path in found[0].moments}
    if variant.start == "ssr":
        start: Routing = {path: _widened(own, model.modules.ranks[path]) for path, own in solved(groups(plain, points), 0.01).items()}
    else:
        start = {path: float(variant.start) * own for path, own in model.modules.selected([True] * len(ablation.bench.group)).items()}
    *_, last = train(model, points, start, moments, Training(**{"steps": _TRAIN_STEPS, "seed": ablation.seed, **variant.training}))
    routing = last.routing()
    if variant.rank and variant.by_outputs:
        routing = truncated(model.modules, routing, moments, variant.rank)
    return model, routing, last.loss


def _widened(matrix: Tensor, ranks: Sequence[int]) -> Tensor:
    """Returns a router of the sources with zeros for what stands behind them, (Σr, Σr)."""
    more = sum(ranks) - len(matrix)
    return F.pad(matrix, (0, more, 0, more))
