"""The product's scorer on prompts of the demo world."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from objectives import JOINT, Baselines, Pictures, Scorer, table
from optimizer.rendering import PromptSet, always_asked
from optimizer.search.sources.loras import LoraSource


def scorer_of(sources: Sequence[LoraSource], prompts: PromptSet, base: Pictures, alone: Sequence[Pictures]) -> Scorer:
    """Returns the scorer of a search whose prompts these are.

    Args:
        sources: the sources.
        prompts: what was drawn.
        base: pictures of the base, with embeddings.
        alone: pictures of each source alone, with embeddings.
    """
    asked = torch.tensor([JOINT if prompt.source is None else prompt.source for prompt in prompts.prompts])
    always = always_asked([source.subject for source in sources])
    return Scorer.from_baselines(table.OBJECTIVES, Baselines(base, tuple(alone), asked, torch.arange(len(asked)), always=always))
