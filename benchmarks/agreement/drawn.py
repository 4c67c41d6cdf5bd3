"""What a group's recorded candidates drew, with embeddings, and the scorer of the group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.agreement.candidates import ALONE, BASE
from benchmarks.scored import scorer_of
from benchmarks.solving.groups import Group
from benchmarks.solving.rows import Row, Rows
from benchmarks.truth import Judge, demo_sources_of, unseen_prompts
from objectives import EMBEDDINGS, AnyEmbedder, Pictures, Scorer
from optimizer.rendering import PromptSet
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
        yield Drawn(group, sources, prompts, found, scorer_of(sources, prompts, found[BASE], [found[ALONE + name] for name in group]))
