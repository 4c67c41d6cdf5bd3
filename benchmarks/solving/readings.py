"""Readings: what the probes see in the pictures of recorded rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from benchmarks.solving.contestants import ALONE, CEILING
from benchmarks.solving.groups import Group
from benchmarks.solving.rows import Row, Rows
from benchmarks.truth import Judge, demo_sources_of, own_prompts, unseen_prompts
from optimizer.rendering import PromptSet
from optimizer.search.sources.loras import LoraSource

_DRAWS = 500


@dataclass(frozen=True)
class Reading:
    """What the probes see of each source in the pictures of one method on one group.

    Attributes:
        names: names of the sources.
        traits: amount of each source's trait, (seeds, K, prompts), in [0, 1].
        shares: weight of each prompt in a source's truth, (K, prompts); rows sum to 1.
        strata: positions of each source's own prompts, and of the joint ones last.
        leaks: positions and source of all readings that count as leakage, as a mask, (K, prompts).
        seconds: time of the processor that the merge took, mean over the seeds.
        memory: peak of memory, in bytes, greatest over the seeds.
    """

    names: Group
    traits: Tensor
    shares: Tensor
    strata: Sequence[Sequence[int]]
    leaks: Tensor
    seconds: float
    memory: int

    @property
    def each(self) -> dict[str, float]:
        """Probe truth of each source, mean over the seeds."""
        return dict(zip(self.names, (self.traits.mean(dim=0) * self.shares).sum(dim=1).tolist(), strict=True))

    @property
    def weakest(self) -> float:
        """Probe truth: the least of the sources'."""
        return min(self.each.values())

    @property
    def leakage(self) -> float:
        """Mean reading of sources on prompts that ask for another one alone; sources without a trigger are left out."""
        return float(self.traits.mean(dim=0)[self.leaks].mean()) if self.leaks.any() else 0.0

    def interval(self) -> tuple[float, float]:
        """Bounds of 90 % of bootstrap samples of the truth, over seeds, and over prompts of each kind."""
        draw = torch.Generator().manual_seed(0)
        seeds, _, count = self.traits.shape
        places = torch.zeros(_DRAWS, seeds, count, dtype=torch.int64)
        for part in self.strata:
            own = torch.tensor(list(part))
            places[..., own] = own[torch.randint(len(own), (_DRAWS, seeds, len(own)), generator=draw)]
        chosen = torch.randint(seeds, (_DRAWS, seeds), generator=draw)
        traits = self.traits[chosen].gather(3, places[:, :, None].expand(-1, -1, len(self.names), -1))
        weakest = (traits.mean(dim=1) * self.shares).sum(dim=2).amin(dim=1)
        low, high = torch.quantile(weakest, torch.tensor([0.05, 0.95])).tolist()
        return low, high


def readings_of(rows: Rows, judge: Judge) -> dict[Group, dict[str, Reading]]:
    """Returns the readings of everything that was recorded: group → method → reading, with the ceiling of each group."""
    recorded: dict[Group, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        recorded[row.group][row.method].append(row)
    return {group: _group(group, methods, rows, judge) for group, methods in recorded.items()}


def _group(group: Group, methods: dict[str, list[Row]], rows: Rows, judge: Judge) -> dict[str, Reading]:
    sources = demo_sources_of(group, judge)
    found = {method: _reading(sources, own, rows, judge) for method, own in methods.items()}
    alone = [found.pop(ALONE + name, None) for name in group]
    if alone[0] is None or any(one is None for one in alone):
        return found
    traits = torch.stack([one.traits[:, k] for k, one in enumerate(alone) if one], dim=1)
    ceiling = Reading(group, traits, alone[0].shares, alone[0].strata, torch.zeros_like(alone[0].leaks), 0.0, 0)
    return {CEILING: ceiling, **found}


def _reading(sources: Sequence[LoraSource], own: Sequence[Row], rows: Rows, judge: Judge) -> Reading:
    traits = [judge.probes.read(rows.pictures(row)).traits for row in own]
    names = tuple(source.name for source in sources)
    prompts = unseen_prompts(sources, each=own[0].each)
    strata = [prompts.indices(k) for k in [*range(len(sources)), None]]
    return Reading(
        names,
        torch.stack([torch.stack([one[name] for name in names]) for one in traits]),
        _shares(sources, prompts),
        strata,
        _leaks(sources, prompts),
        fmean(row.seconds for row in own),
        max(row.memory for row in own),
    )


def _shares(sources: Sequence[LoraSource], prompts: PromptSet) -> Tensor:
    shares = torch.zeros(len(sources), len(prompts))
    for k, source in enumerate(sources):
        for part in (own_prompts(prompts, k, source), prompts.indices(None)):
            shares[k, part] = 0.5 / len(part)
    return shares


def _leaks(sources: Sequence[LoraSource], prompts: PromptSet) -> Tensor:
    asked = [prompt.source for prompt in prompts.prompts]
    return torch.tensor([[bool(s.subject.trigger) and one is not None and one != k for one in asked] for k, s in enumerate(sources)])
