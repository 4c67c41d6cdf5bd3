"""Table: how often verdicts and intervals are right, group by group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import mean

from benchmarks.certainty.pool import Pool
from benchmarks.certainty.studies import TRIALS, Repeats, Search, better_candidate, equal_candidates, searches, true_shares
from objectives import Interval
from optimizer.search.evaluation.comparison import Confirmation, score_interval, score_lead

GAIN = 0.1
"""Gain in score that is to be found."""
CANDIDATES = 20
"""Candidates of a search, as many as the trials of the README's first run."""


def lines(pool: Pool, count: int, confirm: int, equal: bool = False) -> Iterator[str]:
    """Yields the figures of one group.

    Args:
        pool: pictures of the group.
        count: number of repetitions.
        confirm: prompts of each kind in a study.
        equal: whether to compare equal candidates and do nothing else, for which any recipes and few prompts will do.
    """
    repeats = Repeats(pool, count, confirm)
    yield f"{' + '.join(pool.group)}, {count} studies with {confirm} prompts of each kind, from {len(pool.asked) // len(pool.kinds)}"
    yield f"  equal candidates: {_told(equal_candidates(repeats))} (at most 5 % should)"
    if equal:
        return
    true, verdicts = better_candidate(repeats, GAIN)
    yield f"  a candidate that is better by {true:.3f}: {_told(verdicts)} (at least 80 % should)"
    for name, found in coverage(repeats).items():
        yield f"  95 % intervals of {name} cover it in {found:.1%}"
    yield f"  {_optimism(list(searches(repeats, CANDIDATES)))}"


def _told(verdicts: Iterator[Confirmation]) -> str:
    found = list(verdicts)
    won = sum(one.winner.label in TRIALS for one in found)
    needed = mean(one.lead.needed for one in found if one.lead)
    return f"{won} of {len(found)} won, {won / len(found):.1%}; leads below {needed:.3f} were called noise"


def coverage(repeats: Repeats) -> dict[str, float]:
    """Returns in which part of the repetitions the intervals of a study cover the true values."""
    pool = repeats.pool
    scores = repeats.true_scores({name: pool.pictures[name] for name in pool.recipes})
    shares = {name: true_shares(pool, pool.pictures[name]) for name in pool.recipes}
    within: dict[str, list[bool]] = {"the weakest share": [], "the score": [], "differences in score": []}
    for number, rows, _ in repeats.prompts():
        confirmed = repeats.confirmed({name: pool.pictures[name] for name in pool.recipes}, rows, number)
        found, asked = {c.label: c for c in confirmed.contenders}, pool.asked[rows]
        for name, one in found.items():
            within["the weakest share"].append(covers(one.weakest, float(shares[name].amin())))
            within["the score"].append(covers(score_interval(one, asked), scores[name]))
        for a, b in combinations(found, 2):
            within["differences in score"].append(covers(score_lead(found[a], found[b], asked), scores[a] - scores[b]))
    return {name: mean(hits) for name, hits in within.items()}


def covers(found: Interval, true: float) -> bool:
    """Returns whether an interval contains the true value."""
    return found.low <= true <= found.high


def _optimism(found: Sequence[Search]) -> str:
    searched, confirmed, true, drift = (mean(getattr(one, name) for one in found) for name in ("searched", "confirmed", "true", "drift"))
    told = f"best of {CANDIDATES}: {searched:.3f} in the search, {confirmed:.3f} on new prompts, {true:.3f} in truth"
    return f"{told}; {searched - confirmed:+.3f}, of which {drift:+.3f} is so for any candidate"
