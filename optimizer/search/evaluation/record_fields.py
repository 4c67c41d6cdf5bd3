"""Conversion of the outcomes of objectives to the fields of records.

Records have fields for the values of the objectives ``preservation``, ``separation`` and ``artifacts``; a table without one of these
leaves NaN in its fields. Values of all other objectives are metrics, named ``OBJECTIVE:VALUE``, or ``OBJECTIVE:VALUE:SOURCE`` for a value
of one source.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from objectives import ArtifactObjective, Outcome, Outcomes, PreservationObjective, SeparationObjective, combined_shares
from optimizer.search.evaluation.aims import Aims
from studies.records import SourceScore

_PRESERVATION, _SEPARATION, _ARTIFACTS = PreservationObjective.name, SeparationObjective.name, ArtifactObjective.name
_LEVEL = "level"
_NOTHING = Outcome()


def source_scores(outcomes: Outcomes, names: Sequence[str]) -> dict[str, SourceScore]:
    """Returns the scores of each source by its name.

    Args:
        outcomes: outcomes over all prompts.
        names: names of the sources, in order.
    """
    found = {**outcomes.get(_PRESERVATION, _NOTHING).by_source, **outcomes.get(_SEPARATION, _NOTHING).by_source}
    kept = combined_shares(outcomes).tolist()
    own, joint, leakage = (found[name].tolist() if name in found else [math.nan] * len(names) for name in ("own", "joint", "leakage"))
    leaks = _leaks(outcomes, names)
    return {
        name: SourceScore(preservation=kept[k], own=own[k], joint=joint[k], leakage=leakage[k], leaks=leaks[k])
        for k, name in enumerate(names)
    }


def _leaks(outcomes: Outcomes, names: Sequence[str]) -> list[dict[str, float]]:
    """Returns how much of each source is seen on the prompts of each other one, as far as it was measured; empty for two sources."""
    pairs = outcomes.get(_SEPARATION, _NOTHING).by_pair.get("leakage")
    if pairs is None or len(names) < 3:
        return [{} for _ in names]
    return [{name: value for name, value in zip(names, row, strict=True) if not math.isnan(value)} for row in pairs.tolist()]


def artifact_level(outcomes: Outcomes) -> float:
    """Returns the artifact level; NaN if no objective measures it."""
    return float(outcomes.get(_ARTIFACTS, _NOTHING).values.get(_LEVEL, math.nan))


def metrics(outcomes: Outcomes, names: Sequence[str]) -> dict[str, float]:
    """Returns the values that records have no fields for: the parts of the artifact level, and all values of further objectives.

    Args:
        outcomes: outcomes over all prompts.
        names: names of the sources, in order.
    """
    parts = outcomes.get(_ARTIFACTS, _NOTHING).values.items()
    return {f"artifact_{name}": float(value) for name, value in parts if name != _LEVEL} | further_metrics(outcomes, names)


def further_metrics(outcomes: Outcomes, names: Sequence[str]) -> dict[str, float]:
    """Returns the values of all objectives besides ``preservation`` and ``artifacts``; of ``separation``, the factor alone.

    Args:
        outcomes: outcomes over all prompts.
        names: names of the sources, in order.
    """
    further = {objective: outcome for objective, outcome in outcomes.items() if objective not in (_PRESERVATION, _ARTIFACTS)}
    if _SEPARATION in further:
        further[_SEPARATION] = Outcome(factor=further[_SEPARATION].factor)
    return {f"{objective}:{name}": value for objective, outcome in further.items() for name, value in _named_values(outcome, names)}


def constraints(outcomes: Outcomes, names: Sequence[str], aims: Aims) -> dict[str, float]:
    """Returns the amount by which the candidate misses the constraint of each objective that has one, and each target of the user.

    An amount is at most 0 if the candidate satisfies the constraint.

    Args:
        outcomes: outcomes over all prompts.
        names: names of the sources, in order.
        aims: aims of the run.
    """
    found = {name: float(outcome.excess) for name, outcome in outcomes.items() if outcome.excess is not None}
    return found | aims.shortfalls(dict(zip(names, combined_shares(outcomes).tolist(), strict=True)))


def _named_values(outcome: Outcome, names: Sequence[str]) -> Iterator[tuple[str, float]]:
    for name, value in outcome.values.items():
        yield name, float(value)
    by_source = {**outcome.by_source, **({} if outcome.shares is None else {"share": outcome.shares})}
    for name, values in by_source.items():
        yield from ((f"{name}:{source}", value) for source, value in zip(names, values.tolist(), strict=True))
    if outcome.factor is not None:
        yield "factor", float(outcome.factor)
