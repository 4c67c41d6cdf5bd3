"""Preservation: base = 0, source alone = 1, and no credit for what another source does."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from objectives import EMBEDDINGS, JOINT, Baselines, Effects, Pictures, PreservationObjective, mean_shares, moments, others, shares
from tests.objectives.candidates import Kept, preservation
from tests.objectives.reference import seen, share

CLOSE = 2e-3
NOTHING = 1e-2  # the ridge leaves a coefficient of up to 1e-6, of which the cube root is taken
SEEDS = st.integers(0, 2**31)


def unit(*shape: int, seed: int) -> Tensor:
    vectors = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(vectors, dim=-1)


def asked_for(sources: int, own: int, joint: int) -> Tensor:
    return torch.tensor([*(k for k in range(sources) for _ in range(own)), *[JOINT] * joint])


def effects_of(u: Tensor, asked: Tensor, seed: int = 0) -> Effects:
    """Baselines whose effects are u, (k, n, d)."""
    base = unit(*u.shape[1:], seed=seed)
    return Effects(base, base + u, asked)


def random_effects(seed: int, sources: int = 3, own: int = 3, joint: int = 4, width: int = 64, size: float = 0.5) -> Effects:
    asked = asked_for(sources, own, joint)
    return effects_of(size * unit(sources, len(asked), width, seed=seed), asked, seed + 1)


def orthogonal_effects(sizes: tuple[float, ...] = (0.5, 0.3), own: int = 2, joint: int = 3) -> Effects:
    asked = asked_for(len(sizes), own, joint)
    axes = torch.eye(8)[: len(sizes), None] * torch.tensor(sizes)[:, None, None]
    return effects_of(axes.expand(-1, len(asked), -1), asked)


def numbers(found: list[Kept]) -> list[tuple[float, float]]:
    return [(p.own, p.joint) for p in found]


@given(SEEDS)
def test_the_base_keeps_nothing(seed: int) -> None:
    effects = random_effects(seed)
    assert numbers(preservation(effects.base, effects)) == [(0, 0)] * 3


@given(SEEDS, st.integers(0, 2))
def test_a_source_alone_is_that_source(seed: int, source: int) -> None:
    effects = random_effects(seed)
    found = preservation(effects.alone[source], effects)
    assert found[source].own == pytest.approx(1, abs=CLOSE)
    assert found[source].joint == pytest.approx(1, abs=CLOSE)
    assert all(p.joint < NOTHING for k, p in enumerate(found) if k != source)


@given(SEEDS, st.integers(0, 2), st.floats(0, 1))
def test_a_blend_is_seen_as_its_part_is(seed: int, source: int, part: float) -> None:
    effects = random_effects(seed)
    found = preservation(torch.lerp(effects.base, effects.alone[source], part), effects)
    wanted = float(seen(np.array(part)))
    assert found[source].own == pytest.approx(wanted, abs=CLOSE)
    assert found[source].joint == pytest.approx(wanted, abs=CLOSE)


def test_two_orthogonal_effects_at_once() -> None:
    effects = orthogonal_effects()
    both = effects.alone[0] + effects.alone[1] - effects.base
    assert numbers(preservation(both, effects)) == [pytest.approx((1, 1), abs=CLOSE)] * 2
    for source, other in ((0, 1), (1, 0)):
        found = preservation(effects.alone[source], effects)
        assert (found[source].own, found[source].joint) == pytest.approx((1, 1), abs=CLOSE)
        assert (found[other].own, found[other].joint) == (0, 0)


@pytest.mark.parametrize("amount", [0.5, 1.0, 3.0])
def test_what_no_source_does_is_discounted(amount: float) -> None:
    """A merge that draws both sources and as much or more of something else is seen as less of either."""
    effects = orthogonal_effects((0.4, 0.4))
    elsewhere = amount * 0.4 * torch.eye(8)[5]
    both = effects.alone[0] + effects.alone[1] - effects.base
    wanted = float(seen(np.array(1 / (1 + max(amount**2 - 0.5, 0) / 4))))
    assert numbers(preservation(both + elsewhere, effects)) == [pytest.approx((wanted, wanted), abs=CLOSE)] * 2
    assert (wanted == 1) == (amount == 0.5)


@pytest.mark.parametrize("weak", [0.3, 0.05, 0.02])
def test_a_weak_effect_beside_a_strong_one_reaches_1(weak: float) -> None:
    effects = orthogonal_effects((1.0, weak))
    both = effects.alone[0] + effects.alone[1] - effects.base
    assert numbers(preservation(both, effects)) == [pytest.approx((1, 1), abs=CLOSE)] * 2


@pytest.mark.parametrize("likeness", [0.5, 0.9])
def test_similar_effects_get_no_credit_for_each_other(likeness: float) -> None:
    """A projection would give the absent source its likeness."""
    asked = asked_for(2, 3, 3)
    first = torch.eye(8)[0].expand(len(asked), -1)
    second = likeness * first + math.sqrt(1 - likeness**2) * torch.eye(8)[1]
    effects = effects_of(0.5 * torch.stack([first, second]), asked)
    present, absent = preservation(effects.alone[0], effects)
    assert (present.own, present.joint) == pytest.approx((1, 1), abs=0.01)
    assert (absent.own, absent.joint) == pytest.approx((0, 0), abs=0.02)


def test_one_and_the_same_effect_is_shared() -> None:
    asked = asked_for(2, 2, 2)
    u = 0.5 * unit(1, len(asked), 16, seed=3).expand(2, -1, -1)
    found = preservation(effects_of(u, asked, 4).alone[0], effects_of(u, asked, 4))
    assert numbers(found) == [pytest.approx((0.8315,) * 2, abs=CLOSE)] * 2  # of the part ½^⅓: the coefficient is ½, the projection 1


@pytest.mark.parametrize("size", [0.0, 1e-4, 5e-3])
@given(seed=SEEDS)
def test_a_source_without_effect_keeps_nothing(size: float, seed: int) -> None:
    asked = asked_for(2, 3, 3)
    u = torch.stack([0.5 * unit(len(asked), 16, seed=seed), size * unit(len(asked), 16, seed=seed + 1)])
    effects = effects_of(u, asked, seed + 2)
    merged = effects.alone[0] + 0.3 * unit(len(asked), 16, seed=seed + 3)
    found = preservation(merged, effects)
    assert (found[1].own, found[1].joint) == (0, 0)
    assert found[0].joint > 0.5


@given(SEEDS, st.floats(1, 5))
def test_overshoot_counts_as_1_and_the_opposite_as_0(seed: int, gain: float) -> None:
    effects = random_effects(seed)
    u = effects.alone[1] - effects.base
    beyond = preservation(effects.base + (gain + CLOSE) * u, effects)[1]
    opposite = preservation(effects.base - gain * u, effects)[1]
    assert (beyond.own, beyond.joint) == pytest.approx((1, 1), abs=CLOSE)
    assert max(beyond.own, beyond.joint) <= 1
    assert (opposite.own, opposite.joint) == (0, 0)


@given(SEEDS)
def test_shares_are_the_geometric_means_of_projections_and_least_squares_coefficients(seed: int) -> None:
    effects = random_effects(seed)
    merged = effects.base + 0.4 * unit(*effects.base.shape, seed=seed + 2) + 0.5 * (effects.alone - effects.base).sum(dim=0)
    own, joint = shares(moments(merged, effects))
    u, v, asked = (effects.alone - effects.base).double().numpy(), (merged - effects.base).double().numpy(), effects.asked.numpy()

    def wanted(group: int) -> np.ndarray:
        return share(u[:, asked == group], v[asked == group])

    np.testing.assert_allclose(own, [wanted(k)[k] for k in range(3)], atol=5e-3)
    np.testing.assert_allclose(joint, wanted(JOINT), atol=5e-3)


@given(SEEDS)
def test_the_order_of_prompts_and_the_axes_do_not_matter(seed: int) -> None:
    effects = random_effects(seed, width=16)
    merged = effects.base + 0.7 * unit(*effects.base.shape, seed=seed + 2)
    order = torch.randperm(len(merged), generator=torch.Generator().manual_seed(seed))
    turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0].float()
    there = Effects(effects.base[order] @ turn, effects.alone[:, order] @ turn, effects.asked[order])
    found, moved = preservation(merged, effects), preservation(merged[order] @ turn, there)
    for first, second in zip(found, moved, strict=True):
        assert (first.own, first.joint, first.leakage) == pytest.approx((second.own, second.joint, second.leakage), abs=1e-4)


@given(SEEDS, st.lists(st.integers(1, 3), min_size=13, max_size=13))
def test_a_weight_is_a_repetition(seed: int, counts: list[int]) -> None:
    effects = random_effects(seed)
    merged = effects.base + 0.7 * unit(*effects.base.shape, seed=seed + 2)
    weights = torch.tensor(counts, dtype=torch.float32)
    again = torch.arange(13).repeat_interleave(torch.tensor(counts))
    repeated = Effects(effects.base[again], effects.alone[:, again], effects.asked[again])
    for first, second in zip(shares(moments(merged, effects), weights), shares(moments(merged[again], repeated)), strict=True):
        torch.testing.assert_close(first, second)


def test_many_weights_at_once() -> None:
    effects = random_effects(1)
    reduced = moments(effects.base + 0.7 * unit(*effects.base.shape, seed=2), effects)
    weights = torch.randint(0, 4, (2, 5, 13), generator=torch.Generator().manual_seed(0)).float()
    own, joint = shares(reduced, weights)
    assert own.shape == joint.shape == (2, 5, 3)
    one = shares(reduced, weights[1, 3])
    torch.testing.assert_close((own[1, 3], joint[1, 3]), one)


def test_without_joint_prompts() -> None:
    effects = random_effects(0, joint=0)
    found = preservation(effects.alone[1], effects)
    assert all(math.isnan(p.joint) for p in found)
    assert found[1].mean == found[1].own == pytest.approx(1, abs=CLOSE)


def test_without_own_prompts() -> None:
    effects = random_effects(0, own=0)
    found = preservation(effects.alone[1], effects)
    assert all(math.isnan(p.own) and math.isnan(p.leakage) for p in found)
    assert found[1].mean == found[1].joint == pytest.approx(1, abs=CLOSE)


def test_the_mean_of_what_was_measured() -> None:
    own, joint = torch.tensor([[0.2, 0.3], [math.nan, 0.0]]), torch.tensor([[0.6, math.nan], [0.5, 1.0]])
    torch.testing.assert_close(mean_shares(own, joint), torch.tensor([[0.4, 0.3], [0.5, 0.5]]))
    assert math.isnan(mean_shares(torch.tensor(math.nan), torch.tensor(math.nan)))


@pytest.mark.parametrize("amount", [0.0, 0.4, 1.0])
def test_leakage_is_movement_where_others_are_asked_for(amount: float) -> None:
    """The merge does what is asked for, and on the other source's prompts adds some of source 0 too."""
    effects = orthogonal_effects((0.5, 0.3), own=3, joint=2)
    merged = effects.base.clone()
    for source in (0, 1):
        merged[effects.asked == source] = effects.alone[source, effects.asked == source]
    merged[effects.asked == 1] += amount * (effects.alone[0] - effects.base)[effects.asked == 1]
    found = preservation(merged, effects)
    assert found[0].leakage == pytest.approx(float(seen(np.array(amount))), abs=CLOSE)
    assert found[1].leakage == pytest.approx(0, abs=1e-5)


def test_a_source_that_is_always_asked_for_is_measured_on_the_prompts_of_others_too() -> None:
    """The merge draws the style on its own prompts and the character alone on the character's; a half of the style is there."""
    without = orthogonal_effects((0.5, 0.3), own=3, joint=2)
    merged = torch.where((without.asked == 1)[:, None], without.alone[1], without.alone[0])
    style, character = preservation(merged, without)
    assert (style.own, character.own) == pytest.approx((1, 1), abs=CLOSE)
    effects = replace(without, always=frozenset({0}))
    style, character = preservation(merged, effects)
    assert style.own == pytest.approx(float(seen(np.array(0.5))), abs=CLOSE)
    assert character.own == pytest.approx(1, abs=CLOSE)
    assert (style.joint, character.joint) == pytest.approx((1, 0), abs=NOTHING)
    assert style.leakage == 0
    assert character.leakage == pytest.approx(0, abs=CLOSE)
    both = without.alone[0] + (without.asked == 1)[:, None] * (without.alone[1] - without.base)
    assert [kept.own for kept in preservation(both, effects)] == pytest.approx([1, 1], abs=CLOSE)


def test_without_a_base_prompts_of_others_tell_nothing_of_a_source() -> None:
    found = [
        PreservationObjective().reference(Baselines(base, (drawn(1), drawn(2)), asked_for(2, 2, 0), torch.arange(4), always=frozenset({0})))
        for base in (drawn(0), None)
    ]
    assert [each.always for each in found] == [{0}, frozenset()]


def drawn(seed: int) -> Pictures:
    return Pictures(torch.zeros(4, 3, 1, 1, dtype=torch.uint8), {EMBEDDINGS: unit(4, 8, seed=seed)})


def test_a_merge_that_keeps_less_of_what_is_asked_for_does_not_leak() -> None:
    """The first source's effect lies partly against the second's, so a merge that loses the second moves towards the first."""
    asked = asked_for(2, 3, 2)
    first, second = torch.eye(8)[0], 0.6 * torch.eye(8)[1] - 0.8 * torch.eye(8)[0]
    effects = effects_of(0.4 * torch.stack([first, second])[:, None].expand(-1, len(asked), -1), asked)
    merged = torch.where((asked == 1)[:, None], effects.base + 0.5 * (effects.alone[1] - effects.base), effects.alone[0])
    assert preservation(merged, effects)[0].leakage == pytest.approx(0, abs=CLOSE)


def test_what_a_source_does_unasked_leaks_in_the_amount_that_the_merge_keeps_of_it() -> None:
    """Asked for, the source moves along one axis, unasked along another, at half the size."""
    asked = asked_for(2, 3, 2)
    u = torch.zeros(2, len(asked), 8)
    u[0, asked != 1, 0], u[0, asked == 1, 1], u[1, :, 2] = 0.4, 0.2 * math.sqrt(2), 0.4
    effects = effects_of(u, asked)
    both = effects.base + u.sum(dim=0)
    assert preservation(both, effects)[0].leakage == pytest.approx(float(seen(np.array(0.5))), abs=CLOSE)


def test_what_a_source_itself_shows_is_no_leakage_of_another() -> None:
    effects = random_effects(5)
    for source in range(3):
        merged = effects.base.clone()
        for k in range(3):
            merged[effects.asked == k] = effects.alone[k, effects.asked == k]
        assert preservation(merged, effects)[source].leakage == 0


def test_a_source_without_effect_does_not_leak() -> None:
    effects = orthogonal_effects((0.5, 1e-4))
    assert preservation(unit(*effects.base.shape, seed=9), effects)[1].leakage == 0


def test_shapes_that_do_not_match() -> None:
    with pytest.raises(ValueError, match=r"^shapes do not match: base \(4, 8\), alone \(2, 3, 8\), asked \(4,\)$"):
        Effects(torch.zeros(4, 8), torch.zeros(2, 3, 8), torch.zeros(4))


def test_without_a_base_a_source_is_lost_where_its_prompts_are_drawn_as_the_others_draw_them() -> None:
    asked = torch.tensor([0, 0, 1, 1])
    alone = unit(2, 4, 64, seed=3)
    effects = Effects(others(alone, asked), alone, asked)
    both = torch.where((asked == 0)[:, None], alone[0], alone[1])
    assert [p.own for p in preservation(both, effects)] == pytest.approx([1, 1], abs=CLOSE)
    assert [p.own for p in preservation(alone[0], effects)] == pytest.approx([1, 0], abs=CLOSE)
    assert [p.own for p in preservation((alone[0] + alone[1]) / 2, effects)] == pytest.approx([0.25, 0.25], abs=CLOSE)
    assert all(math.isnan(p.joint) and p.mean == p.own for p in preservation(both, effects))


def test_without_a_base_a_source_that_takes_the_place_of_another_leaks() -> None:
    asked, axes = torch.tensor([0, 0, 1, 1]), torch.eye(8)
    alone = torch.stack([axes[0], axes[1]])[:, None].expand(-1, 4, -1)
    effects = Effects(others(alone, asked), alone, asked, based=False)
    assert [p.leakage for p in preservation(alone[0], effects)] == pytest.approx([1, 0], abs=CLOSE)


def test_of_several_others_the_mean_counts_and_joint_prompts_have_none() -> None:
    alone = unit(3, 2, 16, seed=4)
    torch.testing.assert_close(
        others(alone, torch.tensor([1, 2])), torch.stack([(alone[0] + alone[2])[0] / 2, (alone[0] + alone[1])[1] / 2])
    )
    with pytest.raises(ValueError, match="without a base, prompts ask for one source each"):
        others(alone, torch.tensor([1, JOINT]))
