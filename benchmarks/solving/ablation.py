"""Ablation of distillation: one choice changed at a time, on the groups that it was developed on.

Beside the pictures each variant tells its *held-out error*: the mean squared difference from the composition's outputs along trajectories
of prompts that were not trained on, relative to that of the base, for each set of sources that prompts ask for. Of few pictures it tells
variants apart better than probes do, which read most pictures as all or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from benchmarks.solving.contestants import Bench
from benchmarks.solving.measuring import measured
from benchmarks.solving.rows import Row
from optimizer.calibration.closed_form import groups, solved
from optimizer.calibration.compositions import Composition, Mode
from optimizer.calibration.live.routed_modules import Routing
from optimizer.calibration.prompts import JOINT, OWN
from optimizer.calibration.training import Training, mean_loss, train
from optimizer.calibration.trajectories import Points, record
from optimizer.merging import Router


@dataclass(frozen=True)
class Variant:
    """What is changed against the defaults.

    Attributes:
        mode: how the teacher combines the sources.
        gain: gain of every source in the teacher.
        own, joint: numbers of prompts.
        every: one in so many steps of a trajectory is used.
        start: weight of every source at the start, or ``ssr`` for that solution.
        rank: greatest rank of the merge; None for Σr.
        training: fields of the training.
        teacher_only: whether the composition itself is drawn, and nothing is solved.
    """

    mode: Mode = "local"
    gain: float = 1.0
    own: int = OWN
    joint: int = JOINT
    every: int = 1
    start: float | str = 0.8
    rank: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    teacher_only: bool = False


STEPS = 150
_HELD_OUT, _HELD_OUT_PROMPTS = 90_000, 6

VARIANTS: dict[str, Variant] = {
    "default": Variant(),
    "teacher: sum": Variant("sum"),
    "teacher: average": Variant("average"),
    "teacher: switch": Variant("switch"),
    "teacher: gain 1.2": Variant(gain=1.2),
    "prompts: 16 and 24": Variant(own=16, joint=24),
    "prompts: 64 and 32": Variant(own=64, joint=32),
    "steps used: 1 in 3": Variant(every=3),
    "router: diagonal": Variant(training={"diagonal": True, "rate": 0.03}),
    "start: stack": Variant(start=1.0),
    "start: ssr": Variant(start="ssr"),
    "text encoder: as it starts": Variant(training={"texts": False}),
    "rank 16": Variant(rank=16),
    "twice as long": Variant(training={"steps": 2 * STEPS}),
    "rate 0.003": Variant(training={"rate": 0.003}),
    "composition": Variant(teacher_only=True),
    "composition, sum": Variant("sum", teacher_only=True),
    "composition, gain 1.2": Variant(gain=1.2, teacher_only=True),
    "composition, switch": Variant("switch", teacher_only=True),
}
"""Name → variant, as the tables call them."""


def run_ablation(bench: Bench, seed: int, names: Sequence[str]) -> None:
    """Records the rows of some variants on one group, and prints each."""
    held_out: Points | None = None
    for name in names:
        method = f"{name} (ablation)"
        if not bench.rows.has(bench.group, method, seed):
            held_out = held_out or _held_out(bench, seed)
            row = _run(bench, seed, method, VARIANTS[name], held_out)
            print(
                f"{'+'.join(bench.group)} seed {seed}: {name}, {row.seconds:.0f} s, {row.told}",
                flush=True,
            )


def _held_out(bench: Bench, seed: int) -> Points:
    count = _HELD_OUT_PROMPTS
    return record(bench.live, Composition.teacher(len(bench.group)), bench.calibration(_HELD_OUT + seed, count, count).prompts)


def _errors(bench: Bench, points: Points, routing: Routing) -> dict[str, float]:
    """Returns the error of each set of sources that prompts ask for, relative to the base's."""
    found = {}
    for asked in torch.unique(points.asked, dim=0):
        rows = (points.asked[points.prompt] == asked).all(dim=1).nonzero()[:, 0]
        names = "+".join(name for name, one in zip(bench.group, asked.tolist(), strict=True) if one)
        found[names] = round(mean_loss(bench.live, points, rows, routing) / mean_loss(bench.live, points, rows, {}), 3)
    return found


def _run(bench: Bench, seed: int, method: str, variant: Variant, held_out: Points) -> Row:
    teacher = Composition((variant.gain,) * len(bench.group), variant.mode)
    if variant.teacher_only:
        row = Row(bench.group, method, seed, bench.each)
        bench.rows.record(row, bench.draw(bench.live.composed(teacher), seed))
        return row
    (routing, loss), seconds, memory = measured(lambda: _distilled(bench, seed, teacher, variant))
    router = Router(Router.identity(bench.adapters).sources, bench.live.modules.ranks, routing)
    row = Row(bench.group, method, seed, bench.each, seconds, memory, {"loss": loss, "held_out": _errors(bench, held_out, routing)})
    bench.rows.record(row, bench.draw(bench.routed(router, rank=variant.rank), seed), router.serialised())
    return row


def _distilled(bench: Bench, seed: int, teacher: Composition, variant: Variant) -> tuple[Routing, float]:
    """Returns the router and the loss at the end."""
    model = bench.live
    points = _thinned(record(model, teacher, bench.calibration(seed, variant.own, variant.joint).prompts), variant.every)
    found = groups(model, points)
    moments = {path: torch.stack([group.moments[path] for group in found]).mean(dim=0) for path in found[0].moments}
    if variant.start == "ssr":
        start: Routing = solved(found, 0.01)
    else:
        start = {path: torch.full((sum(ranks),), float(variant.start)) for path, ranks in model.modules.ranks.items()}
    *_, last = train(model, points, start, moments, Training(**{"steps": STEPS, "seed": seed, **variant.training}))
    return last.routing(), last.loss


def _thinned(points: Points, every: int) -> Points:
    kept = points.step % every == 0
    part = {name: getattr(points, name)[kept] for name in ("prompt", "step", "sample", "timestep", "target")}
    return replace(points, **part)
