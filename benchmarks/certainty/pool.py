"""Pool: many pictures of a few recipes, from which small studies take their prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.agreement.candidates import ALONE, BASE
from benchmarks.certainty.recipes import contestants, references
from benchmarks.solving.contestants import Bench
from benchmarks.solving.groups import Group
from benchmarks.solving.rows import Row, Rows
from benchmarks.truth import Judge, demo_sources_of, unseen_prompts
from objectives import EMBEDDINGS, JOINT, AnyEmbedder, Baselines, Pictures, Scorer, table
from optimizer.rendering import always_asked

SEED = 0  # of the pool's prompts


@dataclass(frozen=True)
class Pool:
    """Pictures of base, sources and recipes on many prompts of each kind.

    Attributes:
        group: names of the sources.
        asked: index of the source that each prompt asks for, or ``JOINT`` for all of them, int64, (n,).
        texts: index of each prompt's text, int64, (n,).
        pictures: row → its pictures with their embeddings.
        always: indices of the sources that every prompt asks for.
    """

    group: Group
    asked: Tensor
    texts: Tensor
    pictures: Mapping[str, Pictures]
    always: frozenset[int] = frozenset()

    @property
    def recipes(self) -> tuple[str, ...]:
        """Names of the recipes, without base and single sources."""
        return tuple(name for name in self.pictures if name != BASE and not name.startswith(ALONE))

    @property
    def kinds(self) -> tuple[int, ...]:
        """Kinds of prompts: the index of each source, then ``JOINT``."""
        return (*range(len(self.group)), JOINT)

    @cached_property
    def scorer(self) -> Scorer:
        """Scorer on all prompts of the pool."""
        return self.scorer_on(torch.arange(len(self.asked)))

    def scorer_on(self, rows: Tensor) -> Scorer:
        """Returns the product's scorer with its references on some of the prompts, (m,)."""
        base, *alone = (taken(self.pictures[name], rows) for name in (BASE, *(ALONE + source for source in self.group)))
        baselines = Baselines(base, tuple(alone), self.asked[rows], self.texts[rows], always=self.always)
        return Scorer.from_baselines(table.OBJECTIVES, baselines)

    def sample(self, counts: Mapping[int, int], generator: torch.Generator) -> Tensor:
        """Returns the prompts of a small study, each drawn by itself from the pool, whose values are the true ones.

        A study of the product uses each text once before it uses one again, so that its values vary less from study to study.

        Args:
            counts: kind → number of prompts.
            generator: source of chance.

        Returns:
            Rows of the pool, int64, (m,), kind after kind; a row may occur twice.
        """
        members = {kind: (self.asked == kind).nonzero()[:, 0] for kind in counts}
        return torch.cat(
            [members[kind][torch.randint(len(members[kind]), (count,), generator=generator)] for kind, count in counts.items()]
        )


def taken(pictures: Pictures, rows: Tensor) -> Pictures:
    """Returns some of the pictures, (m,) rows."""
    return Pictures(pictures.images[rows], {name: values[rows] for name, values in pictures.features.items()})


def mixed(parts: list[Pictures], which: Tensor) -> Pictures:
    """Returns for every prompt the picture of one of several models; ``which`` holds the index of the model, (n,)."""
    at = torch.arange(len(which))
    features = {name: torch.stack([part.features[name] for part in parts])[which, at] for name in parts[0].features}
    return Pictures(torch.stack([part.images for part in parts])[which, at], features)


def drawn(group: Group, judge: Judge, rows: Rows, each: int) -> Iterator[str]:
    """Draws what is missing of a group's pool, and yields the name of each row as it is recorded."""
    bench = Bench(group, judge, rows, each)
    for make in (references, contestants):
        for one in make(bench):
            if not rows.has(group, one.name, SEED):
                rows.record(Row(group, one.name, SEED, each), bench.draw(one.candidate, SEED))
                yield one.name


def pools(rows: Rows, judge: Judge, embedder: AnyEmbedder, groups: Sequence[Group]) -> Iterator[Pool]:
    """Yields the pools of these groups."""
    for group in groups:
        own = [row for row in rows if row.group == group]
        sources = demo_sources_of(group, judge)
        prompts, always = unseen_prompts(sources, each=own[0].each).prompts, always_asked([source.subject for source in sources])
        numbers = {text: number for number, text in enumerate(dict.fromkeys(p.text for p in prompts))}
        asked = torch.tensor([JOINT if p.source is None else p.source for p in prompts])
        images = {row.method: rows.pictures(row) for row in own}
        pictures = {name: Pictures(each, {EMBEDDINGS: embedder(each)}) for name, each in images.items()}
        yield Pool(group, asked, torch.tensor([numbers[p.text] for p in prompts]), pictures, always)
