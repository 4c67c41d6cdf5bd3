"""How shares agree with labels by eye: ``python -m benchmarks.agreement --labels``.

The panels of ``benchmarks.eyes`` tell what an observer saw in pictures of merges, not the noise that these were drawn from. So a recipe's
mean embedding over its pictures is compared with the mean embeddings of base and sources over other joint prompts: rougher than in a
search, where every picture is compared with others of the same noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.eyes import PANELS, Panel, load_panels
from benchmarks.truth import Judge, demo_sources_of, unseen_prompts
from objectives import JOINT, AnyEmbedder, Effects, moments, shares

_JOINT = 12


def lines(judge: Judge, embedder: AnyEmbedder, folders: tuple[Path, ...] = (PANELS / "choose", PANELS / "report")) -> Iterator[str]:
    """Yields Spearman's rank correlation of shares and labels over recipes, and their mean difference, for each panel and folder."""
    for folder in folders:
        frame = pd.concat([_compared(panel, judge, embedder) for panel in load_panels(folder)])
        yield f"{folder.name}: shares and labels by eye, over recipes"
        for panel, part in [*frame.groupby("panel", sort=False), ("all", frame)]:
            off = (part["share"] - part["label"]).abs().mean()
            yield f"  {panel:<16}{len(part):>5}{part['share'].corr(part['label'], method='spearman'):>7.2f}   off by {off:.2f}"


def _compared(panel: Panel, judge: Judge, embedder: AnyEmbedder) -> pd.DataFrame:
    names = panel.name.split("-")
    sources = demo_sources_of(names, judge)
    prompts = unseen_prompts(sources, each=_JOINT)
    joint = [prompts.prompts[i] for i in prompts.indices(None)]
    base, *alone = (embedder(judge.pictures(adapter, joint)).mean(dim=0) for adapter in (None, *(s.adapter for s in sources)))
    effects = Effects(base[None], torch.stack(alone)[:, None], torch.tensor([JOINT]))
    found, rows = embedder(panel.images), []
    for recipe in dict.fromkeys(panel.recipes):
        own = np.array([one == recipe for one in panel.recipes])
        share = _share(found[torch.from_numpy(own)], effects)
        kept = [(name, share[k]) for k, name in enumerate(names) if name in panel.labels]
        rows += [{"panel": panel.name, "label": panel.labels[name][own].mean(), "share": value} for name, value in kept]
    return pd.DataFrame(rows)


def _share(vectors: Tensor, effects: Effects) -> list[float]:
    """Returns the joint share of each source in the mean of some embeddings, (n, d)."""
    return [float(value) for value in shares(moments(vectors.mean(dim=0, keepdim=True), effects))[1]]
