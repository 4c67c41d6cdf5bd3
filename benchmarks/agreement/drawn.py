"""What a group's recorded candidates drew, with embeddings, and the scorer of the group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks.agreement.candidates import ALONE, BASE
from benchmarks.solving.groups import Group
from benchmarks.solving.rows import Row, Rows
from benchmarks.truth import Judge, demo_sources_of, unseen_prompts
from objectives import EMBEDDINGS, JOINT, AnyEmbedder, Baselines, Pictures, Scorer, table
from optimizer.rendering import PromptSet, always_asked
from optimizer.search.sources.loras import LoraSource


@dataclass(frozen=True)
class Drawn:
    """One group of sources, and what was drawn for it.

    Attributes:
        group: names of the sources.
        sources: sources in the shapes of the base.
        prompts: prompts that every candidate drew.
        candidates: name of the candidate → its pictures, with embeddings; the base and each source alone are among them.
        scorer: objectives of the product, whose references are the base and each source alone.
    """

    group: Group
    sources: Sequence[LoraSource]
    prompts: PromptSet
    candidates: Mapping[str, Pictures]
    scorer: Scorer

    def alone(self, index: int) -> Pictures:
        """Returns what one source by itself drew."""
        return self.candidates[ALONE + self.group[index]]


def drawn_of(rows: Rows, judge: Judge, embedder: AnyEmbedder) -> Iterator[Drawn]:
    """Yields the recorded groups one after the other."""
    recorded: dict[Group, list[Row]] = defaultdict(list)
    for row in rows:
        recorded[row.group].append(row)
    for group, own in recorded.items():
        images = {row.method: rows.pictures(row) for row in own}
        found = {name: Pictures(each, {EMBEDDINGS: embedder(each)}) for name, each in images.items()}
        sources = demo_sources_of(group, judge)
        prompts = unseen_prompts(sources, each=own[0].each)
        asked = torch.tensor([JOINT if p.source is None else p.source for p in prompts.prompts])
        always = always_asked([source.subject for source in sources])
        baselines = Baselines(found[BASE], tuple(found[ALONE + name] for name in group), asked, torch.arange(len(asked)), always=always)
        yield Drawn(group, sources, prompts, found, Scorer.from_baselines(table.OBJECTIVES, baselines))
