"""Comparison: from the finalists' measurements on the confirmation prompts to the contender that is exported. Nothing is drawn here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor

from objectives import Interval, Measurements, Scorer, combined_shares, counted_shares, interval, noise, resamples, score
from optimizer.errors import NoFeasibleMerge
from optimizer.merging import Recipe
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.search.config.aims import KEEP
from optimizer.search.config.metric import OPTION
from optimizer.search.evaluation.aims import Aims
from optimizer.search.evaluation.record_fields import artifact_level, constraints, further_metrics
from optimizer.search.labels import SIMPLE
from studies.records import KEEPS, targets_in, told_misses

_RESAMPLES = 4000
NO_AIMS = Aims()
NO_TARGETS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A candidate on the confirmation prompts, before the comparison.

    Attributes:
        label: name in the verdict.
        number: trial number; None for a source alone and for the composition.
        recipe: recipe of the merge; None for a source alone and for the composition.
        candidate: rendered candidate, with weights as exported; None for a source alone and for the composition.
        images: pictures on the confirmation prompts, uint8, (n, 3, height, width).
        measurements: measurements by all objectives.
        searched: score on the search's prompts; None for a source alone and for the composition.
        missed: constraints that the candidate misses on the search's prompts, with the amounts.
    """

    label: str
    number: int | None = None
    recipe: Recipe | None = None
    candidate: Candidate | None = None
    images: Tensor
    measurements: Measurements
    searched: float | None = None
    missed: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Contender(Entry):
    """A candidate with confirmed scores.

    Attributes:
        score: score by which contenders are ranked, computed as in the search.
        samples: score in every bootstrap resample of the prompts, float64, (r,).
        weakest: share of the weakest source, with its bootstrap interval.
        each: share of every source; NaN for one that does not count in the score.
        artifacts: artifact level; NaN if no objective measures it.
        metrics: values of all objectives besides preservation and artifacts.
        constraints: metric, or ``keep:SOURCE``, → amount by which the candidate misses its constraint, at most 0 if it satisfies it.
    """

    score: float
    samples: Tensor
    weakest: Interval
    each: dict[str, float]
    artifacts: float
    metrics: dict[str, float]
    constraints: dict[str, float] = field(default_factory=dict)

    @property
    def all_missed(self) -> dict[str, float]:
        """Constraints that the candidate misses on the search's prompts or on these, each with the larger amount."""
        here = {name: excess for name, excess in self.constraints.items() if excess > 0}
        return {name: max(self.missed.get(name, 0.0), here.get(name, 0.0)) for name in (*here, *self.missed)}

    def misses(self, *, amounts: bool = True) -> list[str]:
        """Returns what the candidate misses, in words, as ``told_misses`` puts it."""
        return told_misses(self.all_missed, targets_in(self.constraints, self.each), amounts=amounts)

    @property
    def feasible(self) -> bool:
        """Whether the candidate satisfies all constraints, on the search's prompts as well as on these."""
        return not self.all_missed


@dataclass(frozen=True)
class Lead:
    """Lead in score of the best merge that is not simple over the best simple one.

    Attributes:
        best: merge that is not simple.
        over: simple merge.
        difference: lead with its interval; negative if the simple merge is better.
        needed: lead that is beyond noise.
    """

    best: Contender
    over: Contender
    difference: Interval
    needed: float


@dataclass(frozen=True)
class Drift:
    """Drift of some merges on prompts without a trigger.

    Attributes:
        each: label → drift: 0 is no change, 1 as much as a source changes where it is asked for.
        beside: name of the source that a merge is compared with, because every prompt asks for it; empty for the base.
        pictures: number of pictures of each merge.
    """

    each: dict[str, float]
    beside: str
    pictures: int


@dataclass(frozen=True)
class Confirmation:
    """Result of the confirmation.

    Attributes:
        winner: contender that is exported.
        leader: merge with the best confirmed score; may be within noise of a simpler one that is exported instead.
        contenders: all contenders, by descending score, with the composition and the single sources last.
        base: pictures of the base on the confirmation prompts; None without a base.
        lead: lead of the best merge that is not simple; None if all merges are simple, or none is.
        drift: drift of the exported merge and of the stack; None if it was not measured.
    """

    winner: Contender
    leader: Contender
    contenders: tuple[Contender, ...]
    base: Tensor | None
    lead: Lead | None = None
    drift: Drift | None = None


def compare(
    entries: Sequence[Entry],
    scorer: Scorer,
    asked: Tensor,
    names: Sequence[str],
    *,
    seed: int,
    base: Tensor | None = None,
    aims: Aims = NO_AIMS,
) -> Confirmation:
    """Scores all entries on the same resamples, and chooses the merge to export.

    Args:
        entries: what was drawn, at least one merge among them.
        scorer: objectives with their references on the confirmation prompts.
        asked: index of the source that each prompt asks for, or ``JOINT`` for all of them, int64, (n,).
        names: names of the sources, in order.
        seed: seed of the bootstrap.
        base: pictures of the base.
        aims: priorities and targets of the sources.

    Returns:
        Confirmation with the leader and the contender to export, as chosen by ``decide``.

    Raises:
        NoFeasibleMerge: no merge satisfies all constraints on these prompts.
    """
    counts = resamples(asked, count=_RESAMPLES, seed=seed)
    contenders = [_contender(entry, scorer, counts, asked, names, aims) for entry in entries]
    merges = [c for c in contenders if c.recipe is not None]
    if not (feasible := [c for c in merges if c.feasible]):
        missed = {c.label: c.all_missed for c in merges}
        raise NoFeasibleMerge(nearest_miss(missed, "on fresh prompts", aims.targets), remedy=relaxed(missed.values()))
    leader, winner = decide(feasible, asked)
    ordered = sorted(contenders, key=lambda c: (c.recipe is None, -c.score))
    return Confirmation(winner, leader, tuple(ordered), base, lead_among(feasible, asked))


def decide(merges: Sequence[Contender], asked: Tensor) -> tuple[Contender, Contender]:
    """Returns the leader and the merge to export.

    If simple merges are within noise of the leader, the one of them with the best score is exported instead. The leader is the best of
    several, and has to be ahead by as much as the best of as many merges is by chance.

    Args:
        merges: the confirmed merges that satisfy all constraints, with scores over the same resamples.
        asked: kind of every prompt, int64, (n,).
    """
    leader = max(merges, key=lambda c: c.score)
    simple, others = _parted(merges)
    if leader in simple:
        return leader, leader
    close = [c for c in simple if leader.score - c.score <= lead_needed(leader, c, asked, len(others))]
    return leader, max(close, key=lambda c: c.score, default=leader)


def lead_among(merges: Sequence[Contender], asked: Tensor) -> Lead | None:
    """Returns the lead of the best merge that is not simple over the best simple one; None if there is no such pair."""
    simple, others = _parted(merges)
    if not simple or not others:
        return None
    best, over = (max(found, key=lambda c: c.score) for found in (others, simple))
    return Lead(best, over, score_lead(best, over, asked), lead_needed(best, over, asked, len(others)))


def lead_needed(better: Contender, over: Contender, asked: Tensor, candidates: int) -> float:
    """Returns the lead in score over another contender that the best of so many candidates must have to be beyond noise."""
    return noise(better.score - over.score, better.samples - over.samples, asked, candidates)


def score_lead(better: Contender, over: Contender, asked: Tensor) -> Interval:
    """Returns the lead in score of one contender over another, with its interval."""
    return interval(better.score - over.score, better.samples - over.samples, asked)


def score_interval(contender: Contender, asked: Tensor) -> Interval:
    """Returns a contender's score with its interval."""
    return interval(contender.score, contender.samples, asked)


def _parted(merges: Sequence[Contender]) -> tuple[list[Contender], list[Contender]]:
    """Returns the simple merges, and the others."""
    return [c for c in merges if c.label in SIMPLE], [c for c in merges if c.label not in SIMPLE]


def _contender(entry: Entry, scorer: Scorer, counts: Tensor, asked: Tensor, names: Sequence[str], aims: Aims) -> Contender:
    """Scores an entry on all prompts and on every resample; ``counts`` are those of the resamples, (r, n)."""
    outcomes, resampled = scorer.compare(entry.measurements), scorer.compare(entry.measurements, counts)
    weights = aims.weights(names)
    weakest = counted_shares(resampled).amin(dim=-1).broadcast_to(len(counts))
    return Contender(
        **vars(entry),
        score=float(score(outcomes, weights)),
        samples=score(resampled, weights).broadcast_to(len(counts)),
        weakest=interval(float(counted_shares(outcomes).amin()), weakest, asked),
        each=dict(zip(names, combined_shares(outcomes).tolist(), strict=True)),
        artifacts=artifact_level(outcomes),
        metrics=further_metrics(outcomes, names),
        constraints=constraints(outcomes, names, aims),
    )


def nearest_miss(missed: Mapping[str, Mapping[str, float]], where: str, targets: Mapping[str, float] = NO_TARGETS) -> str:
    """Returns which merge comes nearest to satisfying all constraints, and by how much it misses each of the others.

    Args:
        missed: name of each merge → its constraints, with the amounts by which it misses them, at most 0 for those that it satisfies.
        where: on which prompts.
        targets: source → share that a merge had to keep.

    Example:
        >>> nearest_miss({"trial 4": {"sharpness": 0.25, "noise": -1.0}, "stack": {"sharpness": 0.5, "noise": 2.0}}, "on fresh prompts")
        'no merge satisfies all constraints on fresh prompts; trial 4 comes nearest, and misses sharpness by 0.25'
    """
    over = {name: {metric: excess for metric, excess in found.items() if excess > 0} for name, found in missed.items()}
    nearest = min(over, key=lambda name: (len(over[name]), sum(over[name].values())))
    return f"no merge satisfies all constraints {where}; {nearest} comes nearest, and {', and '.join(told_misses(over[nearest], targets))}"


def relaxed(missed: Iterable[Mapping[str, float]]) -> str:
    """Returns the remedy if no merge satisfies the constraints.

    Args:
        missed: constraints that each merge misses, with the amounts; at most 0 for those that it satisfies.

    Example:
        >>> relaxed([{"sharpness": 0.25}, {"sharpness": 0.5}])
        'relax the constraint (--metric), or try more recipes (--budget)'
    """
    names = {name for each in missed for name, excess in each.items() if excess > 0}
    options = [OPTION] * any(not name.startswith(KEEPS) for name in names) + [KEEP] * any(name.startswith(KEEPS) for name in names)
    return f"relax the constraint ({', '.join(options)}), or try more recipes (--budget)"
