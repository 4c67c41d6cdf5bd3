"""What the score says of every candidate, beside what the probes read in the same pictures."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from torch import Tensor

from benchmarks.agreement.candidates import BASE
from benchmarks.agreement.drawn import Drawn, drawn_of
from benchmarks.solving.rows import Rows
from benchmarks.truth import Judge, own_prompts
from objectives import EMBEDDINGS, AnyEmbedder, PreservationObjective, SeparationObjective, score
from optimizer.rendering import PromptSet
from optimizer.search.sources.loras import LoraSource


def frame_of(rows: Rows, judge: Judge, embedder: AnyEmbedder) -> pd.DataFrame:
    """Returns one row for each source of each candidate of every recorded group.

    Columns: ``group``, ``candidate``, ``source``; ``score`` of the candidate; ``share``, ``own``, ``joint`` and ``leakage`` as the product
    measures them; ``clip_i``, the mean cosine to the source alone; ``probe``, ``probe_own``, ``probe_joint`` and ``probe_leakage``, which
    the probes read.
    """
    groups = [pd.DataFrame(_group(drawn, judge)) for drawn in drawn_of(rows, judge, embedder)]
    return pd.concat(groups, ignore_index=True)


def _group(drawn: Drawn, judge: Judge) -> Iterator[dict[str, object]]:
    prompts = drawn.prompts
    for name, pictures in drawn.candidates.items():
        if name == BASE:
            continue
        outcomes = drawn.scorer.compare(drawn.scorer.measure(pictures))
        outcome, value = outcomes[PreservationObjective.name], float(score(outcomes))
        by_source = {**outcome.by_source, **outcomes[SeparationObjective.name].by_source}
        assert outcome.shares is not None
        read = judge.probes.read(pictures.images).traits
        for k, source in enumerate(drawn.sources):
            own_of, joint = own_prompts(prompts, k, source), prompts.indices(None)
            likeness = (pictures.features[EMBEDDINGS] * drawn.alone(k).features[EMBEDDINGS]).sum(dim=1)
            parts = [float(read[source.name][part].mean()) for part in (own_of, joint)]
            yield {
                "group": " + ".join(drawn.group),
                "candidate": name,
                "source": source.name,
                "score": value,
                "share": float(outcome.shares[k]),
                **{each: float(by_source[each][k]) for each in ("own", "joint", "leakage")},
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
