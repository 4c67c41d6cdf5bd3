"""Confirmation: re-evaluates the finalists and the baselines on prompts and seeds that the search did not use."""

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

# A winner must beat a simpler recipe in at least this fraction of the bootstrap resamples; else the difference counts as noise.
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A candidate on the confirmation prompts, before the comparison.

    Attributes:
        label: name in the verdict.
        number: trial number; None for a source alone.
        recipe: recipe of the merge; None for a source alone.
        candidate: rendered candidate, with weights as exported; None for a source alone.
        images: pictures on the confirmation prompts, uint8, (n, 3, height, width).
        moments: sufficient statistics for the bootstrap.
        artifacts: artifact level; 0 for a source alone, because its pictures define the reference range.
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
    """A candidate with confirmed scores.

    Attributes:
        weakest: share of the weakest source, with its bootstrap interval.
        each: share of every source.
    """

    weakest: Interval
    each: dict[str, float]

    @property
    def score(self) -> float:
        """Score by which contenders are ranked, computed as in the search."""
        return float(balance(torch.tensor(list(self.each.values()), dtype=torch.float64))) * soundness(self.artifacts)


@dataclass(frozen=True)
class Confirmation:
    """Result of the confirmation.

    Attributes:
        shipped: contender that is exported.
        leader: merge with the best confirmed score; may be within noise of a simpler one that is exported instead.
        contenders: all contenders, by descending score, with the single sources last.
        base: pictures of the base on the confirmation prompts; None without a base.
    """

    shipped: Contender
    leader: Contender
    contenders: tuple[Contender, ...]
    base: Tensor | None


def finalists(records: Sequence[TrialRecord], count: int) -> list[TrialRecord]:
    """Returns the ``count`` best distinct recipes with a search score above 0, without baselines, followed by stack and naive merge.

    The list is empty if there are none of them.
    """
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
    """Re-scores the finalists and chooses the merge to export.

    Args:
        records: trials of the search, with at least one merge.
        evaluator: evaluator on the confirmation prompts.
        count: number of finalists besides the baselines.
        seed: seed of the bootstrap.
        observer: receives the progress; may raise ``Stopped``.

    Returns:
        Confirmation with the leader and the contender to export, as chosen by ``decide``.

    Raises:
        NoFeasibleMerge: none of the finalists can be rendered on the confirmation prompts.
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
    """Returns the indices of the leader and of the merge to export.

    If the stack or the naive merge is within noise of the leader, it is exported instead; if both are, the one with the better score.

    Args:
        contenders: the confirmed merges.
        samples: share of every source in every resample, (contenders, resamples, sources).
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
    """Returns a finalist rendered on the evaluator's prompts, or None, after a note to the observer, if it cannot be rendered."""
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
