"""Metrics as objectives: how they are called, what follows from their values, and torchmetrics against independent computations."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure, total_variation
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure, TotalVariation
from torchmetrics.image.kid import KernelInceptionDistance

from objectives import EMBEDDINGS, Baselines, KernelDistanceObjective, MetricError, MetricObjective, Pictures, SimilarityObjective
from objectives.artifacts import image_statistics
from objectives.metrics import (
    Constraint,
    FunctionCall,
    MetricIdentity,
    References,
    Rule,
    Scale,
    Term,
    TorchMetricCall,
    build_metric,
    inputs_of,
    quality,
    self_test,
)

CPU = torch.device("cpu")
ASKED = torch.tensor([0, 0, 1, 1, -1])
PROMPTS = ("one", "two", "three", "four", "five")
SIZE = (16, 24)


def pictures(seed: int, count: int = len(ASKED), size: tuple[int, int] = SIZE) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, *size), generator=generator, dtype=torch.uint8)
    return Pictures(images, {EMBEDDINGS: nn.functional.normalize(torch.randn(count, 6, generator=generator), dim=1)})


def baselines(base: bool = True) -> Baselines:
    return Baselines(pictures(1) if base else None, (pictures(2), pictures(3)), ASKED, torch.arange(len(ASKED)), prompts=PROMPTS)


def metric(found: Any, rule: Rule = None, scale: Scale | None = None) -> MetricObjective:
    """The metric as a search has it: a class is built, and everything else is a function."""
    if not isinstance(found, type | Metric):
        return MetricObjective("m", FunctionCall(found), rule, scale or Scale.of(found), MetricIdentity("x:y", ""))
    built = build_metric(found) if isinstance(found, type) else found
    inputs = inputs_of(type(built).update)
    call = TorchMetricCall(built, inputs, floats=inputs != "texts")
    return MetricObjective("m", call, rule, scale or Scale.of(built), MetricIdentity("x:y", ""))


def value(found: MetricObjective, seed: int = 0, counts: Tensor | None = None) -> Tensor:
    reference = found.reference(baselines())
    return found.compare(found.measure(pictures(seed), reference), reference, counts).values["value"]


COUNTS = torch.tensor([[1.0, 1, 1, 1, 1], [2, 0, 1, 1, 1], [1, 1, 0, 2, 1]])


def test_pictures_alone_are_measured_one_by_one() -> None:
    each = total_variation(pictures(0).images.float() / 255, reduction="none").double().numpy()
    found = value(metric(TotalVariation), counts=COUNTS)
    np.testing.assert_allclose(found, COUNTS.numpy() @ each / 5, rtol=1e-6)
    assert float(value(metric(TotalVariation))) == pytest.approx(each.mean())


def test_our_total_variation_is_that_of_torchmetrics() -> None:
    images = pictures(0).images
    theirs = total_variation(images.float() / 255, reduction="none") / images[0].numel()
    assert torch.equal(image_statistics(images)["variation"], theirs)


def test_targets_are_what_the_sources_that_a_prompt_asks_for_draw() -> None:
    images, alone = pictures(0).images.float() / 255, [pictures(seed).images.float() / 255 for seed in (2, 3)]

    def ssim(index: int, source: int) -> float:
        return float(structural_similarity_index_measure(images[index : index + 1], alone[source][index : index + 1], data_range=1.0))  # type: ignore[arg-type]

    each = [ssim(0, 0), ssim(1, 0), ssim(2, 1), ssim(3, 1), (ssim(4, 0) + ssim(4, 1)) / 2]
    found = value(metric(StructuralSimilarityIndexMeasure), counts=COUNTS)
    np.testing.assert_allclose(found, COUNTS.numpy() @ np.array(each) / 5, rtol=1e-5)
    psnr = value(metric(PeakSignalNoiseRatio))
    assert 5 < float(psnr) < 12  # data_range is 1.0, which its constructor demands


class Levels(nn.Module):
    """Features of pictures that need no weights."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.float32
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
        return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_sets_are_compared_with_the_union_of_the_references() -> None:
    kid = KernelInceptionDistance(feature=Levels(), subsets=3)
    found = metric(kid)
    before = torch.get_rng_state()
    first, second = value(found), value(found)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert kid.subset_size == 1000
    assert value(found, counts=COUNTS).shape == ()
    torch.manual_seed(0)
    expected = KernelInceptionDistance(feature=Levels(), subsets=3, subset_size=5)
    for each in baselines().all:
        expected.update(each.images.float() / 255, real=True)
    expected.update(pictures(0).images.float() / 255, real=False)
    assert float(first) == pytest.approx(float(expected.compute()[0]), rel=1e-5)


class Length(Metric):
    """A metric of pictures and texts."""

    higher_is_better = False
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", default=torch.tensor(0.0))

    def update(self, images: Tensor, texts: list[str]) -> None:
        assert images.dtype == torch.uint8
        self.total += sum(map(len, texts)) / len(images)

    def compute(self) -> Tensor:
        return self.total


class Spread(Metric):
    """A metric of a set of pictures that returns two numbers."""

    seen: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("seen", default=[])

    def update(self, imgs: Tensor) -> None:
        self.seen.append(imgs.flatten(1).mean(dim=1))

    def compute(self) -> tuple[Tensor, Tensor]:
        seen = torch.cat(self.seen)
        return seen.std(), seen.mean()


def test_texts_and_sets_without_references() -> None:
    assert float(value(metric(Length))) == sum(map(len, PROMPTS)) / 5
    assert float(value(metric(Spread))) == pytest.approx(float((pictures(0).images.float() / 255).mean(dim=(1, 2, 3)).std()))


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        *(("image:TotalVariation", "pictures"), ("image.arniqa:ARNIQA", "pictures"), ("image.inception:InceptionScore", "pictures")),
        *(("multimodal.clip_iqa:CLIPImageQualityAssessment", "pictures"), ("multimodal.clip_score:CLIPScore", "texts")),
        *(("image.lpip:LearnedPerceptualImagePatchSimilarity", "pairs"), ("image:MultiScaleStructuralSimilarityIndexMeasure", "pairs")),
        *(("image.fid:FrechetInceptionDistance", "sets"), ("image.mifid:MemorizationInformedFrechetInceptionDistance", "sets")),
    ],
)
def test_how_the_metrics_of_torchmetrics_are_called(name: str, inputs: str) -> None:
    module, _, kind = name.partition(":")
    assert inputs_of(getattr(importlib.import_module(f"torchmetrics.{module}"), kind).update) == inputs


def test_what_cannot_be_called() -> None:
    class Generator(Metric):
        def update(self, preds: Tensor, target: dict[str, Tensor]) -> None: ...
        def compute(self) -> Tensor:
            raise NotImplementedError

    class Unset(Metric):
        def __init__(self, size: int) -> None:
            super().__init__()

    with pytest.raises(
        MetricError, match=r"its update takes \(preds, target\) — wrap it in a function of pictures, prompts and references"
    ):
        inputs_of(Generator.update)
    with pytest.raises(MetricError, match="its constructor needs size — name an instance of it"):
        build_metric(Unset)


def light(pictures: Tensor, prompts: list[str], references: References) -> Tensor:
    assert pictures.dtype == torch.uint8
    assert prompts == [*PROMPTS]
    assert references.asked == tuple(ASKED.tolist())
    assert references.base is not None
    assert references.base.shape == references.alone[1].shape == pictures.shape
    return pictures.double().mean(dim=(1, 2, 3)) / 255


def test_functions() -> None:
    each = pictures(0).images.double().mean(dim=(1, 2, 3)) / 255
    torch.testing.assert_close(value(metric(light), counts=COUNTS), COUNTS.double() @ each / 5)
    assert float(value(metric(lambda *_: 3), counts=COUNTS)) == 3.0
    assert value(metric(lambda pictures, *_: [1.0] * len(pictures)), counts=COUNTS).tolist() == [1.0] * 3
    for bad, message in (
        (lambda *_: torch.zeros(2), "the metric m returns values of shape (2,) for 5 pictures — return a number, or one a picture"),
        (lambda *_: "good", "the metric m returns str — return a number, or one number a picture"),
        (lambda *_: None, "the metric m returns NoneType — return a number, or one number a picture"),
        (lambda *_: float("nan"), "the metric m is nan for 1 of 1 values — look at the pictures"),
        (lambda *_: [1, 2, float("inf"), 4, 5], "the metric m is inf for 1 of 5 values — look at the pictures"),
        (lambda pictures: 1.0, "the metric m fails: TypeError: "),
        (lambda *_: 1 / 0, "the metric m fails: ZeroDivisionError: division by zero"),
    ):
        with pytest.raises(MetricError) as caught:
            value(metric(bad))
        assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("scale", "sources", "pairs"),
    [
        (Scale(True, 0.0, 4.0), 9.0, [(1.0, 0.25), (4.0, 1.0), (5.0, 1.0), (-1.0, 1e-6)]),
        (Scale(False, 0.0, 4.0), 9.0, [(1.0, 0.75), (0.0, 1.0), (4.0, 1e-6)]),
        (Scale(True, 0.0, None), 8.0, [(2.0, 0.25), (8.0, 1.0), (9.0, 1.0), (-1.0, 1e-6)]),
        (Scale(False, None, 1.0), 8.0, [(16.0, 0.5), (8.0, 1.0), (1.0, 1.0)]),
        (Scale(True), -4.0, [(-5.0, 0.75), (-4.0, 1.0), (1.0, 1.0)]),
        (Scale(False), -4.0, [(-3.0, 0.8), (-5.0, 1.0)]),
        (Scale(False), 0.0, [(0.0, 1.0), (1.0, 0.5)]),
    ],
)
def test_how_good_a_value_is(scale: Scale, sources: float, pairs: list[tuple[float, float]]) -> None:
    found = quality(torch.tensor([v for v, _ in pairs], dtype=torch.float64), scale, sources)
    np.testing.assert_allclose(found, [t for _, t in pairs])


def test_a_term_is_relative_to_the_sources_alone_and_a_constraint_to_its_bound() -> None:
    def level(pictures: Tensor, prompts: list[str], references: References) -> Tensor:
        return pictures.double().mean(dim=(1, 2, 3))

    def flat(*levels: int) -> Pictures:
        return Pictures(torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4))

    asked = torch.tensor([0, 1])
    found = Baselines(flat(0, 0), (flat(100, 60), flat(20, 60)), asked, asked)  # the mean of the sources alone is 60
    term, bound = metric(level, Term(2.0), Scale(True)), metric(level, Constraint(40, at_least=True))
    counts = torch.tensor([[1.0, 1.0], [2.0, 0.0]])
    reference = term.reference(found)
    outcome = term.compare(term.measure(flat(15, 45), reference), reference, counts)  # means 30 and 15
    assert outcome.factor is not None
    np.testing.assert_allclose(outcome.factor, [0.25, 0.0625])
    assert outcome.excess is None
    excess = bound.compare(bound.measure(flat(15, 45), reference), reference, counts).excess
    assert excess is not None
    assert excess.tolist() == [10.0, 25.0]
    with pytest.raises(
        MetricError, match="m: whether more of it is better is not known, so that it cannot be a term of the score — make it"
    ):
        metric(level, Term(1.0), Scale())


def test_the_self_test_has_the_size_and_the_sources_of_the_run() -> None:
    seen: list[tuple[int, ...]] = []

    def look(pictures: Tensor, prompts: list[str], references: References) -> float:
        seen.append((*pictures.shape, len(references.alone), references.base is None, len(set(prompts))))
        return 1.0

    self_test(metric(look), (8, 12), 3, CPU, based=False)
    assert seen == [(5, 3, 8, 12, 3, True, 5)]
    with pytest.raises(MetricError, match="the metric m fails: "):
        self_test(metric(StructuralSimilarityIndexMeasure), (4, 4), 2, CPU)


def test_the_kernel_distance_against_its_formula() -> None:
    objective = KernelDistanceObjective()
    only = Baselines(None, (pictures(2),), torch.zeros(5, dtype=torch.int64), torch.arange(5))
    reference = objective.reference(only)  # as many as the candidate's pictures, so that there is one subset
    found = objective.compare(objective.measure(pictures(0), reference), reference).values["value"]
    x, y = (pictures(seed).features[EMBEDDINGS].double().numpy() for seed in (2, 0))
    kernel = {name: (a @ b.T + 1) ** 3 for name, (a, b) in {"xx": (x, x), "yy": (y, y), "xy": (x, y)}.items()}
    apart = sum((kernel[name].sum() - np.trace(kernel[name])) / 20 for name in ("xx", "yy"))
    assert float(found) == pytest.approx(apart - 2 * kernel["xy"].mean(), rel=1e-4)
    union = objective.reference(baselines())
    assert objective.measure(pictures(0), union) == objective.measure(pictures(0), union)
    assert np.isnan(objective.measure(pictures(0, count=1), union))


def test_the_similarity_is_that_of_own_prompts() -> None:
    objective = SimilarityObjective()
    reference = objective.reference(baselines())
    mixed = torch.cat([pictures(2).images[:1], pictures(0).images[1:3], pictures(3).images[3:4], pictures(0).images[4:]])
    found = objective.compare(objective.measure(Pictures(mixed), reference), reference, COUNTS).by_source["ssim"]
    assert found.shape == (3, 2)
    others = [float(objective.measure(pictures(0), reference)[index]) for index in (1, 2)]
    np.testing.assert_allclose(
        found, [[(1 + others[0]) / 2, (1 + others[1]) / 2], [1, (1 + others[1]) / 2], [(1 + others[0]) / 2, 1]], rtol=1e-5
    )
    small = Pictures(torch.zeros(5, 3, 8, 8, dtype=torch.uint8))
    assert bool(objective.compare(objective.measure(small, reference), reference).by_source["ssim"].isnan().all())
