"""What the score says of every candidate, beside what the probes read in the same pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from torch import Tensor

from benchmarks.agreement.candidates import ALONE, BASE
from benchmarks.solving.groups import Group
from benchmarks.solving.rows import Row, Rows
from benchmarks.truth import Judge, demo_sources_of, own_prompts, unseen_prompts
from objectives import EMBEDDINGS, JOINT, AnyEmbedder, Baselines, Pictures, PreservationObjective, Scorer, score, table
from optimizer.rendering import PromptSet
from optimizer.search.sources.loras import LoraSource


def frame_of(rows: Rows, judge: Judge, embedder: AnyEmbedder) -> pd.DataFrame:
    """Returns one row for each source of each candidate of every recorded group.

    Columns: ``group``, ``candidate``, ``source``; ``score`` of the candidate; ``share``, ``own``, ``joint`` and ``leakage`` as the product
    measures them; ``clip_i``, the mean cosine to the source alone; ``probe``, ``probe_own``, ``probe_joint`` and ``probe_leakage``, which
    the probes read.
    """
    recorded: dict[Group, list[Row]] = defaultdict(list)
    for row in rows:
        recorded[row.group].append(row)
    groups = [pd.DataFrame(_group(group, own, rows, judge, embedder)) for group, own in recorded.items()]
    return pd.concat(groups, ignore_index=True)


def _group(group: Group, own: Sequence[Row], rows: Rows, judge: Judge, embedder: AnyEmbedder) -> Iterator[dict[str, object]]:
    sources = demo_sources_of(group, judge)
    prompts = unseen_prompts(sources, each=own[0].each)
    asked = torch.tensor([JOINT if p.source is None else p.source for p in prompts.prompts])
    images = {row.method: rows.pictures(row) for row in own}
    found = {name: Pictures(each, {EMBEDDINGS: embedder(each)}) for name, each in images.items()}
    alone = tuple(found[ALONE + name] for name in group)
    scorer = Scorer.from_baselines(table.OBJECTIVES, Baselines(found[BASE], alone, asked, torch.arange(len(asked))))
    for name, pictures in found.items():
        if name == BASE:
            continue
        outcomes = scorer.compare(scorer.measure(pictures))
        outcome, value = outcomes[PreservationObjective.name], float(score(outcomes))
        assert outcome.shares is not None
        read = judge.probes.read(pictures.images).traits
        for k, source in enumerate(sources):
            own_of, joint = own_prompts(prompts, k, source), prompts.indices(None)
            likeness = (pictures.features[EMBEDDINGS] * alone[k].features[EMBEDDINGS]).sum(dim=1)
            parts = [float(read[source.name][part].mean()) for part in (own_of, joint)]
            yield {
                "group": " + ".join(group),
                "candidate": name,
                "source": source.name,
                "score": value,
                "share": float(outcome.shares[k]),
                **{each: float(outcome.by_source[each][k]) for each in ("own", "joint", "leakage")},
                "clip_i": sum(float(likeness[part].mean()) for part in (own_of, joint)) / 2,
                "probe": sum(parts) / 2,
                "probe_own": parts[0],
                "probe_joint": parts[1],
                "probe_leakage": _leakage(read[source.name], prompts, k, source),
            }


def _leakage(read: Tensor, prompts: PromptSet, index: int, source: LoraSource) -> float:
    """Returns the mean reading on prompts that ask for another source alone; NaN for a source without a trigger."""
    foreign = [i for i, prompt in enumerate(prompts.prompts) if prompt.source not in (None, index)]
    return float(read[foreign].mean()) if source.subject.trigger else float("nan")
