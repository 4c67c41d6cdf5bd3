"""Effects: embeddings of the base and of each source alone, whose differences tell what a source does to a picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.objective import EMBEDDINGS, JOINT, Baselines

NO_EFFECT = 1e-4
"""Squared distance between unit vectors below which a source has no effect."""


@dataclass(frozen=True)
class Effects:
    """Embeddings of the base and of each source alone.

    Attributes:
        base: embeddings of the base's pictures, unit vectors, (n, d).
        alone: embeddings of each source's pictures, (k, n, d).
        asked: index of the source that each prompt asks for, or ``JOINT`` for all of them, (n,).
        based: whether ``base`` is what a base model draws; False if ``others`` stands in for it.
        left_out: indices of the sources that do not count in the score.
        always: indices of the sources that every prompt asks for; empty without a base, where prompts of others have no reference.
    """

    base: Tensor
    alone: Tensor
    asked: Tensor
    based: bool = True
    left_out: frozenset[int] = frozenset()
    always: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        n, d = self.base.shape
        if self.alone.shape[1:] != (n, d) or self.asked.shape != (n,):
            raise ValueError(
                f"shapes do not match: base {tuple(self.base.shape)}, alone {tuple(self.alone.shape)}, asked {tuple(self.asked.shape)}"
            )

    @classmethod
    def of(cls, baselines: Baselines) -> Effects:
        """Returns the effects, measured from the base's embeddings; without a base, from the mean embedding of the other sources."""
        alone = torch.stack([pictures.features[EMBEDDINGS] for pictures in baselines.alone])
        if baselines.base is None:
            return cls(others(alone, baselines.asked), alone, baselines.asked, based=False, left_out=baselines.left_out)
        base = baselines.base.features[EMBEDDINGS]
        return cls(base, alone, baselines.asked, left_out=baselines.left_out, always=baselines.always)

    @property
    def sources(self) -> int:
        """Number of sources."""
        return len(self.alone)

    @property
    def groups(self) -> Tensor:
        """Prompts that each source's own share is measured on, and in the last row the joint prompts, bool, (k + 1, n)."""
        single = [(self.asked == k) | ((self.asked != JOINT) & (k in self.always)) for k in range(self.sources)]
        return torch.stack([*single, self.asked == JOINT])


def others(alone: Tensor, asked: Tensor) -> Tensor:
    """Returns a substitute for the base embeddings: per prompt, the mean over the sources that the prompt does not ask for.

    With this reference, a source is lost if the merge draws its prompts as the other sources do.
    It is kept if the merge draws them as the source itself does.

    Args:
        alone: embeddings of each source's pictures, (k, n, d), k ≥ 2.
        asked: index of the source that each prompt asks for, (n,). Prompts that ask for all sources have no reference.

    Returns:
        Reference embeddings, (n, d): unit vectors for two sources, means of unit vectors for more.

    Raises:
        ValueError: a prompt asks for all sources.

    Example:
        >>> others(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([0])).tolist()
        [[0.0, 1.0]]
    """
    if bool((asked == JOINT).any()):
        raise ValueError("without a base, prompts ask for one source each")
    k, n, _ = alone.shape
    own = alone[asked, torch.arange(n, device=asked.device)]
    return (alone.sum(dim=0) - own) / (k - 1)
