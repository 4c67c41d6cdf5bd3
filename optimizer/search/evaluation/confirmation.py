"""Confirmation: re-evaluates the finalists and the baselines on prompts and seeds that the search did not use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from optimizer.errors import NoFeasibleMerge, TrialError
from optimizer.merging import Recipe
from optimizer.rendering import Prompt
from optimizer.search.evaluation.comparison import Confirmation, Entry, compare
from optimizer.search.evaluation.drift import has_drift, measured_drift
from optimizer.search.evaluation.evaluator import Evaluator
from optimizer.search.labels import COMPOSITION, NAIVE, SIMPLE, STACK, alone_label, is_alone
from optimizer.search.observer import Observer
from studies.records import TrialRecord


def finalists(records: Sequence[TrialRecord], count: int) -> list[TrialRecord]:
    """Returns the ``count`` best distinct recipes with a search score above 0, without baselines, followed by the simple merges.

    These are stack and naive merge, and, unless one of the best recipes has equal weights, the better one of those with equal weights.
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
    equal = [] if any(r.label in SIMPLE for r in chosen) else [r for r in ranked if r.label in SIMPLE and r not in simple]
    return [*chosen, *equal[:1], *simple]


def _score(record: TrialRecord) -> float:
    return record.evaluation.score if record.evaluation else 0.0


def confirm(
    records: Sequence[TrialRecord],
    evaluator: Evaluator,
    *,
    count: int,
    seed: int,
    observer: Observer,
    without_triggers: Sequence[Prompt] = (),
) -> Confirmation:
    """Re-scores the finalists and chooses the merge to export.

    Args:
        records: trials of the search, with at least one merge.
        evaluator: evaluator on the confirmation prompts.
        count: number of finalists besides the baselines.
        seed: seed of the bootstrap.
        observer: receives the progress; may raise ``Stopped``.
        without_triggers: prompts that ask for no source, on which the drift is measured; empty to leave it out.

    Returns:
        Confirmation with the leader and the contender to export, as chosen by ``compare``.

    Raises:
        NoFeasibleMerge: none of the finalists can be rendered on the confirmation prompts, or none satisfies all constraints there.
    """
    chosen = finalists(records, count)
    drifts = 3 if without_triggers and has_drift(evaluator) else 0  # picture sets of the reference, of the exported merge, and of the stack
    observer.stage("confirm", len(chosen) + 1 + len(evaluator.sources) + (evaluator.routers is not None) + drifts)
    raw = [entry for record in chosen if (entry := _render(record, evaluator, observer))]
    if not raw:
        raise NoFeasibleMerge("no finalist could be rendered on fresh prompts", remedy="lower the weights, or render in fp32")
    baselines = evaluator.render_baselines()
    raw += [*_composition(evaluator, observer), *_alone(evaluator)]
    names = [source.name for source in evaluator.sources]
    found = compare(raw, baselines.scorer, evaluator.asked, names, seed=seed, base=baselines.base, aims=evaluator.aims)
    if not drifts:
        return found
    merges = [c for c in found.contenders if c is found.winner or c.label == STACK]
    return replace(found, drift=measured_drift(merges, evaluator, without_triggers, observer))


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
        searched=record.evaluation.score,
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
