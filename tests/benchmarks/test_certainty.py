"""The benchmark of verdicts and intervals: pools, small studies on them, and what is printed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.agreement.candidates import ALONE, BASE
from benchmarks.agreement.groups import CHOOSE
from benchmarks.certainty.__main__ import GROUPS, main
from benchmarks.certainty.pool import Pool, mixed, taken
from benchmarks.certainty.recipes import EQUAL
from benchmarks.certainty.studies import TRIALS, Repeats, better_candidate, equal_candidates, searches
from benchmarks.certainty.table import coverage, covers
from benchmarks.solving.rows import Row, Rows
from objectives import EMBEDDINGS, JOINT, Interval, Pictures
from optimizer.search.labels import STACK

NAMES = ("neon", "hat")
EACH = 12
RECIPES = {STACK: 0.75, EQUAL: 0.7, "neon 0.6": 0.65, "hat 0.6": 0.6}
"""Recipe → how far it goes from the base to the sources."""


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Two sources whose effects are orthogonal, recipes that draw a part of both and something else, 12 prompts of each kind, 6 texts."""
    chance = torch.Generator().manual_seed(0)
    asked = torch.tensor([0, 1, JOINT]).repeat_interleave(EACH)
    base = normalize(torch.randn(len(asked), 64, generator=chance), dim=1)
    effects = 0.5 * normalize(torch.randn(2, len(asked), 64, generator=chance), dim=2)
    shown = torch.stack([(asked == k) | (asked == JOINT) for k in range(2)])[..., None] * effects

    def drawn(effect: Tensor) -> Pictures:
        images = torch.randint(256, (len(asked), 3, 12, 12), generator=chance, dtype=torch.uint8)
        return Pictures(images, {EMBEDDINGS: normalize(base + effect, dim=1)})

    noise = 0.2 * normalize(torch.randn(len(RECIPES), len(asked), 64, generator=chance), dim=2)
    recipes = {name: drawn(part * shown.sum(dim=0) + noise[i]) for i, (name, part) in enumerate(RECIPES.items())}
    alone = {ALONE + name: drawn(shown[k]) for k, name in enumerate(NAMES)}
    return Pool(NAMES, asked, torch.arange(len(asked)) // 2, {BASE: drawn(0 * base), **alone, **recipes})


def test_a_study_takes_prompts_of_each_kind(pool: Pool) -> None:
    drawn = pool.sample({0: 4, 1: 3, JOINT: 2}, torch.Generator().manual_seed(1))
    assert pool.asked[drawn].tolist() == [0] * 4 + [1] * 3 + [JOINT] * 2
    often = pool.sample(dict.fromkeys(pool.kinds, 1200), torch.Generator().manual_seed(1)).bincount()
    assert (len(often), int(often.min()) > 60, int(often.max()) < 140) == (len(pool.asked), True, True)


def test_mixed_pictures_are_those_of_the_model_that_is_named(pool: Pool) -> None:
    parts = [pool.pictures[STACK], pool.pictures[EQUAL]]
    which = torch.arange(len(pool.asked)) % 2
    found = mixed(parts, which)
    for at, model in enumerate(which.tolist()):
        assert torch.equal(found.images[at], parts[model].images[at])
        assert torch.equal(found.features[EMBEDDINGS][at], parts[model].features[EMBEDDINGS][at])
    assert torch.equal(taken(found, torch.tensor([3])).images[0], parts[1].images[3])


def test_equal_candidates_deal_the_pictures_of_real_recipes(pool: Pool) -> None:
    real = torch.stack([pool.pictures[name].images for name in pool.recipes]).flatten(2).sum(dim=2)
    dealt = set()
    for found in equal_candidates(Repeats(pool, 3, 4)):
        assert {c.label for c in found.contenders} == {STACK, *TRIALS}
        sums = torch.stack([c.images.flatten(1).sum(dim=1) for c in found.contenders])
        for prompt in sums.T:
            assert (prompt.sort().values == real.sort(dim=0).values.T).all(dim=1).any(), "each picture goes to one candidate"
        dealt.add(tuple(sums[0].tolist()))
    assert len(dealt) == 3


def test_equal_candidates_rarely_win_and_a_better_one_does(pool: Pool) -> None:
    repeats = Repeats(pool, 20)
    assert sum(found.winner.label in TRIALS for found in equal_candidates(repeats)) <= 3
    gain, verdicts = better_candidate(repeats, 0.15)
    assert 0.15 <= gain < 0.2
    found = list(verdicts)
    assert {c.label for c in found[0].contenders} == {STACK, EQUAL, "neon 0.6", "hat 0.6", TRIALS[0]}
    assert sum(one.winner.label == TRIALS[0] for one in found) >= 18


def test_intervals_are_compared_with_the_values_of_the_pool(pool: Pool) -> None:
    assert (covers(Interval(0.5, 0.4, 0.6), 0.4), covers(Interval(0.5, 0.4, 0.6), 0.61)) == (True, False)
    found = coverage(Repeats(pool, 10))
    assert set(found) == {"the weakest share", "the score", "differences in score"}
    assert all(0.6 < part <= 1 for part in found.values())


def test_a_search_is_compared_with_the_truth(pool: Pool) -> None:
    repeats = Repeats(pool, 3)
    true = repeats.true_scores({STACK: pool.pictures[STACK]})[STACK]
    found = list(searches(repeats, 4))
    assert len({one.searched for one in found}) == len({one.confirmed for one in found}) == 3
    assert all(abs(one.drift) < 0.1 and 0.5 * true < one.true <= 1.05 * true for one in found)


def test_recorded_rows_print_without_drawing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, chance = Rows(tmp_path), torch.Generator().manual_seed(0)
    for name in (BASE, *(ALONE + source for source in NAMES), *RECIPES):
        rows.record(Row(NAMES, name, 0, 3), torch.randint(256, (9, 3, 64, 64), generator=chance, dtype=torch.uint8))
    main(["--table", "--equal", "--groups", "neon+hat", "--studies", "2", "--confirm", "3", "--out", str(tmp_path)])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "neon + hat, 2 studies with 3 prompts of each kind, from 3"
    assert printed[1].startswith("  equal candidates: ")
    assert len(printed) == 2


def test_nothing_was_chosen_on_the_groups_of_the_result() -> None:
    assert not {tuple(name.split("+")) for name in GROUPS} & set(CHOOSE)
