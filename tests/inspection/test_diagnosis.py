"""Diagnosis: every sentence word for word, on adapters whose numbers are known by construction, on both sides of every threshold."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from optimizer.adapters.adapter import Adapter
from optimizer.adapters.factors import Factors
from optimizer.inspection.diagnosis import about_one, about_two, diagnose
from optimizer.inspection.similarity import kinship
from optimizer.inspection.strength import anatomy

SIZE = 64
OUT05 = "unet.up_blocks.1.attentions.2.transformer_blocks.0.attn1.to_q"
MID = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
IN04 = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
IN07 = "unet.down_blocks.2.attentions.0.transformer_blocks.0.attn1.to_q"
TE = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
TE2 = TE.replace("text_encoder", "text_encoder_2")
ALL = (IN04, IN07, MID, OUT05)


def module(values: list[float], at: int = 0) -> Factors:
    """ΔW is diagonal, with the values from a place on."""
    return diagonal(dict(enumerate(values, at)))


def diagonal(values: dict[int, float]) -> Factors:
    """ΔW is diagonal, with these values at these places; of scale 1 and as many ranks as values."""
    eye = torch.eye(SIZE, dtype=torch.float64)[list(values)]
    return Factors(eye.T * torch.tensor(list(values.values()), dtype=torch.float64), eye, float(len(values)), (SIZE, SIZE))


def meeting(cosine: float, at: int, strength: float = 1.0) -> Factors:
    """A module of norm ``strength``, of which one direction is shared with a module made at another place, by √|cosine| each, and seven
    are not."""
    own = dict.fromkeys(range(at, at + 7), math.sqrt((1 - abs(cosine)) / 7) * strength)
    return diagonal({0: math.sqrt(abs(cosine)) * strength} | own)


def adapter(name: str, modules: dict[str, Factors], base: str = "unknown") -> Adapter:
    return Adapter(name, modules, base=base, sha256=name)


def pair(cosines: dict[str, float], strength: float = 1.0) -> list[str]:
    """The sentences on two adapters that have these cosines in their modules; the second is so many times as strong."""
    a = adapter("a", {path: meeting(c, 1) for path, c in cosines.items()})
    b = adapter("b", {path: signed(meeting(c, 8, strength), c) for path, c in cosines.items()})
    return list(about_two(kinship(a, b)))


def signed(factors: Factors, sign: float) -> Factors:
    return replace(factors, alpha=math.copysign(factors.alpha, sign))


def alone(modules: dict[str, Factors]) -> list[str]:
    return list(about_one(anatomy(adapter("a", modules))))


@pytest.mark.parametrize(
    ("strength", "expected"),
    [
        (2.4, "b is 2.4× stronger than a: start at weights 0.71 / 0.29 (a / b)"),
        (1 / 2.4, "a is 2.4× stronger than b: start at weights 0.29 / 0.71 (a / b)"),
        (1.26, "b is 1.3× stronger than a: start at weights 0.56 / 0.44 (a / b)"),
        (40, "b is 40× stronger than a: start at weights 0.98 / 0.02 (a / b)"),
        (1999, "b is 1999× stronger than a: start at weights 1.00 / 0.0005 (a / b)"),
    ],
)
def test_strength(strength: float, expected: str) -> None:
    assert pair(dict.fromkeys(ALL, 0.3), strength) == [expected]


@pytest.mark.parametrize("strength", [1.0, 1.24, 1 / 1.24])
def test_about_equal_strength_is_not_worth_a_word(strength: float) -> None:
    assert pair(dict.fromkeys(ALL, 0.3), strength) == []


@pytest.mark.parametrize("cosine", [0.0, 0.049, -0.049])
def test_independent(cosine: float) -> None:
    assert pair(dict.fromkeys(ALL, cosine)) == ["a and b are independent (cosine ≈ 0): a plain sum keeps both, TIES has nothing to elect"]


@pytest.mark.parametrize("cosine", [0.06, -0.06, 0.49, -0.19])
def test_an_unremarkable_cosine(cosine: float) -> None:
    assert pair(dict.fromkeys(ALL, cosine)) == []


@pytest.mark.parametrize(
    ("cosine", "expected"),
    [
        (0.51, "a and b do much the same (cosine 0.51): at full weights they add up, start at weights with sum 1"),
        (0.99992, "a and b are the same change (cosine 0.9999), at different strengths if at all"),
    ],
)
def test_alike(cosine: float, expected: str) -> None:
    assert pair(dict.fromkeys(ALL, cosine)) == [expected]


def test_opposed() -> None:
    """Block by block, the worst three by name; where only the total is, as a whole."""
    assert pair({OUT05: -0.4, MID: 0.3}) == ["a and b pull in opposite directions in OUT05 (cosine −0.40)"]
    assert pair({OUT05: -0.4, MID: 0.4}) == ["a and b pull in opposite directions in OUT05 (cosine −0.40)"]
    assert pair({OUT05: -0.21, MID: -0.5, IN04: -0.7, IN07: -0.3}) == [
        "a and b pull in opposite directions in IN04 (cosine −0.70), MID (cosine −0.50), IN07 (cosine −0.30), 1 more"
    ]


def test_the_same_file_and_files_that_change_nothing() -> None:
    a = adapter("a", {MID: module([1.0])})
    idle = adapter("idle", {MID: module([0.0, 0.0])})
    assert list(about_two(kinship(a, replace(a, name="b")))) == ["a and b are the same file"]
    assert list(about_two(kinship(a, idle))) == []
    assert list(about_one(anatomy(idle))) == ["idle changes nothing: every ΔW is 0"]
    assert alone({MID: module([1.0]), IN04: module([0.0]), OUT05: module([0.9])})[0] == "a: 1 of 3 modules change nothing, their ΔW is 0"


def test_what_does_not_fit() -> None:
    a = adapter("a", {MID: module([1.0])}, "sdxl")
    small = Factors(torch.ones(8, 1), torch.ones(1, 8), 1.0, (8, 8))
    assert list(about_two(kinship(a, replace(a, name="b", base="sd1")))) == ["a is for sdxl, b for sd1: they cannot be merged"]
    assert list(about_two(kinship(a, adapter("b", {IN04: module([1.0])})))) == ["a and b cannot be merged: no module is changed by both"]
    assert list(about_two(kinship(a, adapter("b", {MID: small})))) == ["a and b cannot be merged: no module has the same shape in both"]
    both = adapter("b", {MID: meeting(0.3, 1), IN04: small}), adapter("c", {MID: meeting(0.3, 8), IN04: module([0.01])})
    assert list(about_two(kinship(*both))) == [
        "b and c: 1 module with different shapes cannot be merged",
        "98 % of b's energy is in modules that c does not change",
    ]


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ({TE: [1.0]}, ["all of a's change is in the text encoder"]),
        ({TE: [1.0], TE2: [1.0]}, ["all of a's change is in the text encoders"]),
        ({TE: [3.1], MID: [1.0]}, ["91 % of a's energy is in the text encoder"]),
        ({TE: [2.0], MID: [1.0]}, ["80 % of a's energy is in TE"]),
        ({MID: [1.1], IN04: [1.0]}, ["55 % of a's energy is in MID"]),
        ({MID: [1.0], IN04: [0.8], IN07: [0.8]}, []),
        ({MID: [1.0]}, []),
    ],
)
def test_where_the_energy_is(modules: dict[str, list[float]], expected: list[str]) -> None:
    assert alone({path: module(values) for path, values in modules.items()}) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0] * 6 + [0.0] * 58, ["a has rank 64, but 99 % of its energy needs 6: rank 8 would do"]),
        ([1.0] * 8 + [0.0] * 8, ["a has rank 16, but 99 % of its energy needs 8: rank 8 would do"]),
        ([1.0] * 9 + [0.0] * 15, []),
        ([1.0] * 5 + [0.0] * 3, []),
        ([1.0, 0.0], ["a has rank 2, but 99 % of its energy needs 1: rank 1 would do"]),
    ],
)
def test_spare_rank(values: list[float], expected: list[str]) -> None:
    assert alone({path: module(values) for path in ALL}) == expected


def test_spare_rank_of_a_file_of_many_ranks() -> None:
    modules = {path: module([1.0] + [0.0] * index) for index, path in enumerate(ALL)}
    assert alone(modules) == ["a has rank up to 4, but 99 % of its energy needs 1: rank 1 would do"]


def test_aligned_subspaces() -> None:
    """Equal inputs and other outputs, as files have that were trained from one seed."""
    eye = torch.eye(SIZE)
    a, b = (
        adapter(name, {path: Factors(eye[:, at : at + 4], eye[:4], 4.0, (SIZE, SIZE)) for path in ALL}) for name, at in (("a", 0), ("b", 4))
    )
    independent = "a and b are independent (cosine ≈ 0): a plain sum keeps both, TIES has nothing to elect"
    assert list(about_two(kinship(a, b))) == [
        independent,
        "a and b read much the same directions (overlap 1.00, by chance 0.06)",
    ]
    turned = [replace(x, modules={p: Factors(f.down.T, f.up.T, f.alpha, f.shape) for p, f in x.modules.items()}) for x in (a, b)]
    assert list(about_two(kinship(*turned))) == [
        independent,
        "a and b write into much the same directions (overlap 1.00, by chance 0.06)",
    ]


def test_the_whole_space_is_no_finding() -> None:
    """Modules of full rank overlap completely, by chance as well."""
    generator = torch.Generator().manual_seed(0)
    full = [adapter(name, {MID: Factors(torch.randn(64, 64, generator=generator), torch.eye(64), 64.0, (64, 64))}) for name in ("a", "b")]
    found = kinship(*full)
    assert (found.total.columns.share, found.total.columns.chance) == pytest.approx((1, 1))
    assert not [sentence for sentence in about_two(found) if "directions" in sentence]


def test_energy_beyond_the_others_reach() -> None:
    a = adapter("a", {MID: meeting(0.3, 1)})
    b = adapter("b", {MID: meeting(0.3, 8), IN04: module([2.0])})
    assert list(about_two(kinship(a, b))) == ["80 % of b's energy is in modules that a does not change"]
    strong = adapter("b", {MID: meeting(0.3, 8, 3.0), IN04: module([1.0])})
    assert list(about_two(kinship(a, strong))) == ["b is 3.0× stronger than a where both work: start at weights 0.75 / 0.25 (a / b)"]


def test_files_come_before_pairs() -> None:
    a, b = adapter("a", {TE: meeting(0.0, 1)}), adapter("b", {TE: meeting(0.0, 8)})
    assert diagnose([anatomy(a), anatomy(b)], [kinship(a, b)]) == (
        "all of a's change is in the text encoder",
        "all of b's change is in the text encoder",
        "a and b are independent (cosine ≈ 0): a plain sum keeps both, TIES has nothing to elect",
    )
    assert diagnose([], []) == ()
