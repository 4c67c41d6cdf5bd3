"""Whether the artifact level tells damaged pictures from healthy ones: ``python -m benchmarks.damage``.

For groups of demo sources, merges draw the prompts of ``benchmarks.agreement``. Their pictures are healthy; filters damage them, and merges
are driven to 2, 3 and 4 times the strength. Printed is how often a damaged candidate has a higher level than a healthy one (area under the
ROC curve), how many single sources are flagged at the level that one healthy merge of twenty exceeds, and what score the controls get that
keep nothing: a LoRA of random numbers as strong as the stack, and no change at all. Rows are kept in a folder; the command continues where
it was interrupted.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType

import torch
import torchvision.transforms.v2.functional as vision
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from benchmarks.agreement.candidates import ALONE, BASE, Named, baselines, candidates
from benchmarks.agreement.drawn import Drawn, drawn_of
from benchmarks.agreement.groups import SETS, named
from benchmarks.solving.contestants import Bench
from benchmarks.solving.rows import Row, Rows
from benchmarks.truth import load_judge
from objectives import EMBEDDINGS, AnyEmbedder, ArtifactObjective, Pictures, load_embedder, score
from optimizer.adapters import Adapter, Factors
from studies.demo.world import demo_embedder

HEALTHY = ("all 0.65", "all 0.8", "orthogonalize", "composition", "composition, average", "random 0", "random 1", "random 2")
OVERDRIVEN = (2.0, 3.0, 4.0)
CONTROLS = ("random LoRA 1", "random LoRA 2", "random LoRA 3")


def _noisy(images: Tensor) -> Tensor:
    grain = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + 20 * grain).round().clamp(0, 255).to(torch.uint8)


DAMAGES = MappingProxyType[str, Callable[[Tensor], Tensor]](
    {
        "blurred, σ = 1 pixel": lambda images: vision.gaussian_blur(images, [5, 5], [1.0, 1.0]),
        "noise, σ = 20 of 255": _noisy,
        "posterised to 4 levels": lambda images: vision.posterize(images, 2),
        "saturation × 2.2": lambda images: vision.adjust_saturation(images, 2.2),
        "contrast × 2": lambda images: vision.adjust_contrast(images, 2.0),
    }
)


def main(given: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.damage", description=__doc__)
    parser.add_argument("--groups", nargs="+", default=["report"], help=f"{', '.join(SETS)}, or names like neon+hat")
    parser.add_argument("--each", type=int, default=8, help="prompts of each kind: each source's own, and joint ones")
    parser.add_argument("--out", type=Path, default=Path("build/damage"))
    parser.add_argument("--threads", type=int, help="of the CPU")
    asked = parser.parse_args(given)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    rows, judge, embedder = Rows(asked.out), load_judge(), load_embedder(demo_embedder())
    groups = named(asked.groups)
    for group in groups:
        bench = Bench(group, judge, rows, asked.each)
        for one in _needed(bench):
            if not rows.has(group, one.name, 0):
                rows.record(Row(group, one.name, 0, asked.each), bench.draw(one.candidate, 0))
    print(*lines([drawn for drawn in drawn_of(rows, judge, embedder) if drawn.group in groups], embedder), sep="\n")


def _needed(bench: Bench) -> Iterator[Named]:
    yield from baselines(bench)
    yield from (one for one in candidates(bench) if one.name in HEALTHY)
    for strength in OVERDRIVEN:
        yield Named(f"all {strength}", bench.linear([strength] * len(bench.group)))
    stack = bench.linear([1.0] * len(bench.group))
    for number, name in enumerate(CONTROLS):
        yield Named(name, random_like(stack, number))


def random_like(adapter: Adapter, seed: int) -> Adapter:
    """Returns an adapter of random factors that changes every module by the same Frobenius norm as the given one."""
    generator = torch.Generator().manual_seed(seed)
    modules = {}
    for path, factors in adapter.modules.items():
        up, down = (torch.randn(each.shape, generator=generator) for each in (factors.up, factors.down))
        drawn = Factors(up, down, factors.alpha, factors.shape)
        modules[path] = Factors(up * (factors.norm() / drawn.norm()), down, factors.alpha, factors.shape)
    return Adapter(f"random-{seed}", modules, base=adapter.base)


def lines(groups: list[Drawn], embedder: AnyEmbedder) -> Iterator[str]:
    """Yields the lines of the table."""
    levels: dict[str, list[float]] = defaultdict(list)
    alone, controls = [], []
    for drawn in groups:
        for name, pictures in drawn.candidates.items():
            if name in HEALTHY:
                levels[""].append(_level(drawn, pictures))
                for kind, damage in DAMAGES.items():
                    levels[kind].append(_level(drawn, _damaged(pictures, damage, embedder)))
            if name in (strong := [f"all {strength}" for strength in OVERDRIVEN]):
                levels[f"strength {OVERDRIVEN[strong.index(name)]:g}"].append(_level(drawn, pictures))
            if name.startswith(ALONE):
                alone.append(_level(drawn, pictures))
            if name in (BASE, *CONTROLS):
                controls.append(float(score(drawn.scorer.compare(drawn.scorer.measure(pictures)))))
    yield from _table(levels)
    limit = _quantile(levels[""], 0.95)
    yield f"single sources above {limit:.2f}, which one healthy merge of twenty exceeds: {sum(x > limit for x in alone)} of {len(alone)}"
    yield f"highest score of {len(controls)} controls, random LoRAs and no change: {max(controls):.3f}"


def _table(levels: dict[str, list[float]]) -> Iterator[str]:
    healthy = levels[""]
    yield f"{'pictures':<26}{'candidates':>10}{'median level':>14}{'AUC':>8}"
    for kind, found in levels.items():
        both = torch.tensor(healthy + found)
        truth = torch.tensor([0] * len(healthy) + [1] * len(found))
        area = f"{float(binary_auroc(both, truth)):8.3f}" if kind else ""
        yield f"{kind or 'healthy':<26}{len(found):>10}{_quantile(found, 0.5):>14.2f}{area}"


def _quantile(values: list[float], at: float) -> float:
    return float(torch.tensor(values).quantile(at))


def _damaged(pictures: Pictures, damage: Callable[[Tensor], Tensor], embedder: AnyEmbedder) -> Pictures:
    images = damage(pictures.images)
    return Pictures(images, {EMBEDDINGS: embedder(images)})


def _level(drawn: Drawn, pictures: Pictures) -> float:
    return float(drawn.scorer.compare(drawn.scorer.measure(pictures))[ArtifactObjective.name].values["level"])


if __name__ == "__main__":
    main()
