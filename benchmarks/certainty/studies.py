"""Small studies on prompts of a pool: everything from the measurements to the verdict is done by the product's own code."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from statistics import mean

import torch
from torch import Tensor

from benchmarks.agreement.candidates import ALONE
from benchmarks.certainty.pool import Pool, mixed, taken
from benchmarks.certainty.recipes import EQUAL
from objectives import JOINT, Pictures, balance, combined_shares, score
from optimizer.merging import Recipe
from optimizer.search.config import OPTIONS
from optimizer.search.evaluation.comparison import Confirmation, Entry, compare
from optimizer.search.labels import STACK

CONFIRM, FINALISTS = OPTIONS["confirm"].default, OPTIONS["finalists"].default
OWN, SEARCHED = OPTIONS["own"].default, OPTIONS["joint"].default
TRIALS = tuple(f"trial {number}" for number in range(1, 1 + FINALISTS))
_FACTORS = 12  # studies whose factors are averaged
_PLAIN = Recipe(method="linear", weights=(1.0,))  # what a contender is made of does not matter to the comparison


@dataclass(frozen=True)
class Repeats:
    """Repeated studies on one pool.

    Attributes:
        pool: pictures that the studies take their prompts from.
        count: number of repetitions.
        confirm: number of confirmation prompts of each kind.
    """

    pool: Pool
    count: int
    confirm: int = CONFIRM

    def prompts(self) -> Iterator[tuple[int, Tensor, torch.Generator]]:
        """Yields number, confirmation prompts and source of chance of each repetition."""
        for number in range(self.count):
            generator = torch.Generator().manual_seed(number)
            yield number, self.pool.sample(dict.fromkeys(self.pool.kinds, self.confirm), generator), generator

    def true_scores(self, models: Mapping[str, Pictures]) -> dict[str, float]:
        """Returns the true score of some models, given their pictures of all prompts.

        It is the balance of the shares on all prompts, times the factors of studies of this size, on average: the range of base and
        sources, which damage is measured from, is the wider the more pictures of them there are.
        """
        factors: dict[str, list[float]] = {name: [] for name in models}
        for _, rows, _ in islice(self.prompts(), _FACTORS):
            scorer = self.pool.scorer_on(rows)
            for name, pictures in models.items():
                outcomes = scorer.compare(scorer.measure(taken(pictures, rows)))
                factors[name].append(math.prod(float(o.factor) for o in outcomes.values() if o.factor is not None))
        return {name: float(balance(true_shares(self.pool, pictures))) * mean(factors[name]) for name, pictures in models.items()}

    def confirmed(self, models: Mapping[str, Pictures], rows: Tensor, seed: int) -> Confirmation:
        """Returns what the product says of some models, given their pictures of all prompts, on these rows of the pool."""
        return self.compared({label: taken(pictures, rows) for label, pictures in models.items()}, rows, seed)

    def compared(self, models: Mapping[str, Pictures], rows: Tensor, seed: int) -> Confirmation:
        """Returns what the product says of some models, given their pictures of these rows of the pool."""
        scorer = self.pool.scorer_on(rows)
        entries = [
            Entry(label=label, recipe=_PLAIN, images=found.images, measurements=scorer.measure(found)) for label, found in models.items()
        ]
        return compare(entries, scorer, self.pool.asked[rows], self.pool.group, seed=seed)


def equal_candidates(repeats: Repeats) -> Iterator[Confirmation]:
    """Yields verdicts on candidates that are equal: for each prompt, their pictures are exchanged with those of a baseline at random.

    The stack and three finalists stand for four recipes of the pool, and every prompt deals the four pictures to the four names anew. So
    all four have the same expected score, whatever that is, while single differences stay as large, and as alike within a kind of prompts,
    as those of real recipes. Pictures of one recipe from other noise would not do: shares compare with base and sources at equal noise.
    """
    pool = repeats.pool
    for number, rows, generator in repeats.prompts():
        order = torch.randperm(len(pool.recipes), generator=generator)[: 1 + FINALISTS].tolist()
        parts = [taken(pool.pictures[pool.recipes[i]], rows) for i in order]
        dealt = torch.rand(len(rows), len(parts), generator=generator).argsort(dim=1)
        yield repeats.compared({label: mixed(parts, dealt[:, i]) for i, label in enumerate((STACK, *TRIALS))}, rows, number)


def better_candidate(repeats: Repeats, gain: float) -> tuple[float, Iterator[Confirmation]]:
    """Returns by how much a candidate is truly better than the best baseline, about ``gain``, and verdicts on it beside the baselines.

    The candidate draws as the best baseline does, but on a part of the prompts that ask for one source as that source alone.
    """
    pool = repeats.pool
    fixed = repeats.true_scores({name: pool.pictures[name] for name in (STACK, EQUAL)})
    best = max(fixed, key=lambda name: fixed[name])
    ideal = mixed([*(pool.pictures[ALONE + name] for name in pool.group), pool.pictures[best]], pool.asked % (1 + len(pool.group)))
    rank = _rank_within(pool.asked)

    def better(count: int) -> Pictures:
        return mixed([pool.pictures[best], ideal], (rank < count).long())

    def gained(count: int) -> float:
        return repeats.true_scores({"": better(count)})[""] - fixed[best]

    count = bisect_left(range(int(rank.max()) + 1), gain, key=gained)
    others = [name for name in pool.recipes if name not in fixed][: FINALISTS - 1]
    models = {name: pool.pictures[name] for name in (*fixed, *others)} | {TRIALS[0]: better(count)}
    return gained(count), (repeats.confirmed(models, rows, number) for number, rows, _ in repeats.prompts())


@dataclass(frozen=True)
class Search:
    """A small search and what was confirmed of it.

    Attributes:
        searched, confirmed, true: score of the exported merge in the search, on new prompts, and in truth.
        drift: mean over all candidates of the score in the search less the true one, which no choice has part in.
    """

    searched: float
    confirmed: float
    true: float
    drift: float


def searches(repeats: Repeats, candidates: int) -> Iterator[Search]:
    """Yields searches among candidates that draw each prompt as one recipe or another does, in proportions of their own."""
    pool = repeats.pool
    models = _proposals(pool, candidates) | {STACK: pool.pictures[STACK]}
    true = repeats.true_scores(models)
    for number in range(repeats.count):
        chance = torch.Generator().manual_seed(number)
        seen = pool.sample({kind: SEARCHED if kind == JOINT else OWN for kind in pool.kinds}, chance)
        fresh = pool.sample(dict.fromkeys(pool.kinds, repeats.confirm), chance)
        scorer = pool.scorer_on(seen)
        found = {name: float(score(scorer.compare(scorer.measure(taken(pictures, seen))))) for name, pictures in models.items()}
        ranked = sorted((name for name in models if name != STACK), key=lambda name: found[name], reverse=True)[:FINALISTS]
        winner = repeats.confirmed({name: models[name] for name in (STACK, *ranked)}, fresh, number).winner
        yield Search(found[winner.label], winner.score, true[winner.label], mean(found[name] - true[name] for name in models))


def _proposals(pool: Pool, count: int) -> dict[str, Pictures]:
    """Returns candidates that draw each prompt as one of the recipes does, in proportions of their own."""
    generator = torch.Generator().manual_seed(0)
    parts = [pool.pictures[name] for name in pool.recipes]
    proportions = -torch.rand(count, len(parts), generator=generator).log()  # uniform, once they sum to 1
    which = torch.multinomial(proportions, len(pool.asked), replacement=True, generator=generator)
    return {f"trial {number}": mixed(parts, row) for number, row in enumerate(which, 1)}


def true_shares(pool: Pool, pictures: Pictures) -> Tensor:
    """Returns the share of each source on all prompts of the pool, (k,)."""
    return combined_shares(pool.scorer.compare(pool.scorer.measure(pictures)))


def _rank_within(asked: Tensor) -> Tensor:
    """Returns each prompt's rank among those of its kind, in random order, (n,)."""
    order = torch.rand(len(asked), generator=torch.Generator().manual_seed(0))
    return torch.stack([((asked == asked[i]) & (order < order[i])).sum() for i in range(len(asked))])
