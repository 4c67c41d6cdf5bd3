"""Confirmation: the finalists and the baselines once more, on prompts and seeds that the search never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objectives import Interval, Moments, balance, bootstrap, interval, kept, moments, probability_better, soundness
from optimizer.errors import NoFeasibleMerge, TrialError
from optimizer.merging import Recipe
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.search.evaluation.evaluator import Evaluator
from optimizer.search.labels import NAIVE, STACK, alone_label, is_alone
from optimizer.search.observer import Observer
from studies.records import TrialRecord

# A winner that does not beat a simpler recipe in this share of the bootstrap's resamples is within noise of it.
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model on the confirmation prompts, before it is compared.

    Attributes:
        label: its name in the verdict.
        number: trial number, or None for a source alone.
        recipe: None for a source alone.
        candidate: what was drawn with, as exported; None for a source alone.
        images: uint8, (n, 3, height, width), on the confirmation prompts.
        moments: for the bootstrap.
        artifacts: its artifact level, 0 for a source alone, whose pictures are what that is measured against.
    """

    label: str
    number: int | None = None
    recipe: Recipe | None = None
    candidate: Candidate | None = None
    images: Tensor
    moments: Moments
    artifacts: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Contender(Entry):
    """One confirmed model.

    Attributes:
        weakest: the weakest source's share with its confidence interval.
        each: every source's share.
    """

    weakest: Interval
    each: dict[str, float]

    @property
    def score(self) -> float:
        """What contenders are ranked by, as in the search."""
        return float(balance(torch.tensor(list(self.each.values()), dtype=torch.float64))) * soundness(self.artifacts)


@dataclass(frozen=True)
class Confirmation:
    """The outcome.

    Attributes:
        shipped: the contender that is exported.
        leader: the merge with the best confirmed score, which may be within noise of the shipped, simpler one.
        contenders: all, best first, sources alone last.
        base: pictures of the base on the same prompts, if there is one.
    """

    shipped: Contender
    leader: Contender
    contenders: tuple[Contender, ...]
    base: Tensor | None


def finalists(records: Sequence[TrialRecord], count: int) -> list[TrialRecord]:
    """The best ``count`` distinct recipes by search score, greater than 0, that are not baselines, followed by stack and naive merge;
    empty if there is none of them."""
    complete = [r for r in records if r.evaluation is not None]
    ranked = sorted((r for r in complete if _score(r) > 0), key=_score, reverse=True)
    simple = [r for r in complete if r.label in (STACK, NAIVE)]
    hashes = {r.evaluation.recipe_hash for r in simple if r.evaluation}
    chosen: list[TrialRecord] = []
    for record in ranked:
        recipe_hash = record.evaluation.recipe_hash if record.evaluation else ""
        if not is_alone(record.label) and recipe_hash not in hashes and len(chosen) < count:
            hashes.add(recipe_hash)
            chosen.append(record)
    return [*chosen, *simple]


def _score(record: TrialRecord) -> float:
    return record.evaluation.score if record.evaluation else 0.0


def confirm(records: Sequence[TrialRecord], evaluator: Evaluator, *, count: int, seed: int, observer: Observer) -> Confirmation:
    """Re-score the finalists and choose what to ship.

    Args:
        records: the search's trials, with at least one merge among them.
        evaluator: on the confirmation prompts.
        count: finalists besides the baselines.
        seed: of the bootstrap.
        observer: may raise ``Stopped``.

    Returns:
        The leader, and the contender to ship, which ``decide`` chooses.

    Raises:
        NoFeasibleMerge: not one of them can be rendered on these prompts.
    """
    chosen = finalists(records, count)
    observer.stage("confirm", len(chosen) + 1 + len(evaluator.sources))
    raw = [entry for record in chosen if (entry := _render(record, evaluator, observer))]
    if not raw:
        raise NoFeasibleMerge("no finalist could be rendered on fresh prompts", remedy="lower the weights, or render in fp32")
    raw += _alone(evaluator)
    samples = bootstrap([entry.moments for entry in raw], seed=seed)
    contenders = [_contender(entry, row, evaluator) for entry, row in zip(raw, samples, strict=True)]
    merges = [i for i, c in enumerate(contenders) if c.recipe is not None]
    leader, shipped = (merges[i] for i in decide(contenders[: len(merges)], samples[: len(merges)]))
    ordered = sorted(contenders, key=lambda c: (c.recipe is None, -c.score))
    return Confirmation(contenders[shipped], contenders[leader], tuple(ordered), evaluator.baselines.base)


def decide(contenders: Sequence[Contender], samples: Tensor) -> tuple[int, int]:
    """Positions of the leader and of the merge to ship.

    Do no harm: where the stack or the naive merge is within noise of the leader, the better one of those that are is shipped.

    Args:
        contenders: the confirmed merges.
        samples: what each keeps of every source in every resample, (contenders, resamples, sources).
    """
    value = [c.score for c in contenders]
    scored = balance(samples) * torch.tensor([soundness(c.artifacts) for c in contenders])[:, None]
    leader = max(range(len(value)), key=value.__getitem__)
    simple = [i for i, c in enumerate(contenders) if c.label in (STACK, NAIVE)]
    if leader in simple:
        return leader, leader
    close = [i for i in simple if probability_better(scored[leader], scored[i]) < CONFIDENCE]
    return leader, max(close, key=value.__getitem__, default=leader)


def _render(record: TrialRecord, evaluator: Evaluator, observer: Observer) -> Entry | None:
    """A finalist on the evaluator's prompts, or None, which the observer is told, where they cannot be rendered."""
    assert record.evaluation is not None
    recipe, label = Recipe.from_data(record.evaluation.recipe), record.label or f"trial {record.number}"
    try:
        measured = evaluator.evaluate(recipe)
    except TrialError as error:
        observer.note(f"{label} cannot be confirmed: {error}")
        return None
    return Entry(
        label=label,
        number=record.number,
        recipe=recipe,
        candidate=measured.candidate,
        images=measured.images,
        moments=measured.moments,
        artifacts=measured.evaluation.artifacts,
    )


def _alone(evaluator: Evaluator) -> list[Entry]:
    found = evaluator.baselines
    return [
        Entry(label=alone_label(s.name), images=images, moments=moments(found.effects.alone[k], found.effects))
        for k, (s, images) in enumerate(zip(evaluator.sources, found.alone, strict=True))
    ]


def _contender(entry: Entry, samples: Tensor, evaluator: Evaluator) -> Contender:
    found = kept(entry.moments)
    each = {s.name: float(share) for s, share in zip(evaluator.sources, found, strict=True)}
    weakest = interval(float(found.amin()), samples.amin(dim=-1))
    return Contender(**vars(entry), weakest=weakest, each=each)
