"""Confirmation: re-evaluates the finalists and the baselines on prompts and seeds that the search did not use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor

from objectives import Interval, Measurements, Scorer, combined_shares, counted_shares, interval, probability_better, resamples, score
from optimizer.errors import NoFeasibleMerge, TrialError
from optimizer.merging import Recipe
from optimizer.rendering.candidates.candidate import Candidate
from optimizer.search.config.aims import KEEP
from optimizer.search.config.metric import OPTION
from optimizer.search.evaluation.aims import Aims
from optimizer.search.evaluation.evaluator import Evaluator
from optimizer.search.evaluation.record_fields import artifact_level, constraints, further_metrics
from optimizer.search.labels import COMPOSITION, NAIVE, STACK, alone_label, is_alone
from optimizer.search.observer import Observer
from studies.records import KEEPS, TrialRecord, targets_in, told_misses

# A winner must beat a simpler recipe in at least this fraction of the bootstrap resamples; else the difference counts as noise.
CONFIDENCE = 0.95
_RESAMPLES = 1000
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
        missed: constraints that the candidate misses on the search's prompts, with the amounts.
    """

    label: str
    number: int | None = None
    recipe: Recipe | None = None
    candidate: Candidate | None = None
    images: Tensor
    measurements: Measurements
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
class Confirmation:
    """Result of the confirmation.

    Attributes:
        winner: contender that is exported.
        leader: merge with the best confirmed score; may be within noise of a simpler one that is exported instead.
        contenders: all contenders, by descending score, with the composition and the single sources last.
        base: pictures of the base on the confirmation prompts; None without a base.
    """

    winner: Contender
    leader: Contender
    contenders: tuple[Contender, ...]
    base: Tensor | None


def finalists(records: Sequence[TrialRecord], count: int) -> list[TrialRecord]:
    """Returns the ``count`` best distinct recipes with a search score above 0, without baselines, followed by stack and naive merge.

    Recipes that miss a constraint are left out; stack and naive merge are compared even then. The list is empty if no merge is complete and
    satisfies all constraints.
    """
    complete = [r for r in records if r.evaluation is not None]
    feasible = [r for r in complete if r.evaluation and r.evaluation.feasible and not is_alone(r.label)]
    if not feasible:
        return []
    ranked = sorted((r for r in feasible if _score(r) > 0), key=_score, reverse=True)
    simple = [r for r in complete if r.label in (STACK, NAIVE)]
    hashes = {r.evaluation.recipe_hash for r in simple if r.evaluation}
    chosen: list[TrialRecord] = []
    for record in ranked:
        recipe_hash = record.evaluation.recipe_hash if record.evaluation else ""
        if recipe_hash not in hashes and len(chosen) < count:
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
        NoFeasibleMerge: none of the finalists can be rendered on the confirmation prompts, or none satisfies all constraints there.
    """
    chosen = finalists(records, count)
    observer.stage("confirm", len(chosen) + 1 + len(evaluator.sources) + (evaluator.routers is not None))
    raw = [entry for record in chosen if (entry := _render(record, evaluator, observer))]
    if not raw:
        raise NoFeasibleMerge("no finalist could be rendered on fresh prompts", remedy="lower the weights, or render in fp32")
    baselines = evaluator.render_baselines()
    raw += [*_composition(evaluator, observer), *_alone(evaluator)]
    counts, names = resamples(evaluator.asked, count=_RESAMPLES, seed=seed), [s.name for s in evaluator.sources]
    contenders = [_contender(entry, baselines.scorer, counts, names, evaluator.aims) for entry in raw]
    merges = [c for c in contenders if c.recipe is not None]
    if not (feasible := [c for c in merges if c.feasible]):
        missed = {c.label: c.all_missed for c in merges}
        problem = nearest_miss(missed, "on fresh prompts", evaluator.aims.targets)
        raise NoFeasibleMerge(problem, remedy=relaxed(missed.values()))
    leader, winner = decide(feasible)
    ordered = sorted(contenders, key=lambda c: (c.recipe is None, -c.score))
    return Confirmation(winner, leader, tuple(ordered), baselines.base)


def decide(merges: Sequence[Contender]) -> tuple[Contender, Contender]:
    """Returns the leader and the merge to export.

    If the stack or the naive merge is within noise of the leader, it is exported instead; if both are, the one with the better score.

    Args:
        merges: the confirmed merges that satisfy all constraints, with scores over the same resamples.
    """
    leader = max(merges, key=lambda c: c.score)
    simple = [c for c in merges if c.label in (STACK, NAIVE)]
    if any(c is leader for c in simple):
        return leader, leader
    close = [c for c in simple if probability_better(leader.samples, c.samples) < CONFIDENCE]
    return leader, max(close, key=lambda c: c.score, default=leader)


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
        measurements=measured.measurements,
        missed=record.evaluation.violated,
    )


def _composition(evaluator: Evaluator, observer: Observer) -> list[Entry]:
    """Returns the composition of all sources, if the run has a live model to draw it with, and it can be drawn."""
    if evaluator.routers is None:
        return []
    try:
        images, measurements = evaluator.compose()
    except TrialError as error:
        observer.note(f"{COMPOSITION}: {error}")
        return []
    return [Entry(label=COMPOSITION, images=images, measurements=measurements)]


def _alone(evaluator: Evaluator) -> list[Entry]:
    found = evaluator.render_baselines()
    return [
        Entry(label=alone_label(s.name), images=images, measurements=measurements)
        for s, images, measurements in zip(evaluator.sources, found.alone, found.measurements, strict=True)
    ]


def _contender(entry: Entry, scorer: Scorer, counts: Tensor, names: Sequence[str], aims: Aims) -> Contender:
    """Scores an entry on all prompts and on every resample; ``counts`` are those of the resamples, (r, n)."""
    outcomes, resampled = scorer.compare(entry.measurements), scorer.compare(entry.measurements, counts)
    weights = aims.weights(names)
    weakest = counted_shares(resampled).amin(dim=-1).broadcast_to(len(counts))
    return Contender(
        **vars(entry),
        score=float(score(outcomes, weights)),
        samples=score(resampled, weights).broadcast_to(len(counts)),
        weakest=interval(float(counted_shares(outcomes).amin()), weakest),
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
