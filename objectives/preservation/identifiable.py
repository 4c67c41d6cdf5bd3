"""Identifiable sources: those whose effect on their own prompts can be told from chance.

A source's share is a projection on its effect u_i = φ(alone_i) − φ(base_i), p = mean ⟨u_i, v_i⟩ / mean ‖u_i‖² over its own prompts i. A
merge that keeps nothing of the source still differs from the base by chance, as pictures of other prompts and noise do: by
w_j = φ(base_j) − mean φ(base). Over n prompts the numerator then has the standard error s = √(mean_{i≠j} ⟨u_i, w_j⟩² / n). The source alone
gives mean ‖u_i‖². Where that is below ``ERRORS`` standard errors, no share of the source means anything.

On the demo world, with four own prompts, each source alone has 12 standard errors or more, the same source at a hundredth of its strength
0.3 to 4, random factors at a hundredth of its norm 0.1 to 2, and a source that changes nothing 0 (``python -m benchmarks.identifiable``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from objectives.objective import EMBEDDINGS, Baselines
from objectives.preservation.effects import NO_EFFECT, Effects, others

ERRORS = 3.0
"""Standard errors that a source's effect must exceed."""
_FEWEST = 2  # own prompts: chance on a single one may be as large as an effect


def standard_errors(effects: Effects, source: int) -> float:
    """Returns how many standard errors a source's effect on its own prompts is from chance; ∞ if there is no chance to compare with.

    Args:
        effects: embeddings of the baselines.
        source: index of the source.

    Example:
        >>> base = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1, 0.0], [1.0, -0.1, 0.1], [1.0, 0.0, -0.1]]), dim=1)
        >>> moved = torch.nn.functional.normalize(base + torch.tensor([0.0, 0.6, 0.6]), dim=1)
        >>> effects = Effects(base, torch.stack([moved, base]), torch.tensor([0, 0, 1]))
        >>> standard_errors(effects, 0) > ERRORS, standard_errors(effects, 1)
        (True, 0.0)
    """
    own = (effects.asked == source).nonzero()[:, 0]
    base = effects.base.double()
    moved = effects.alone[source, own].double() - base[own]
    size = float(moved.square().sum(dim=1).mean())
    chance = (moved @ (base - base.mean(dim=0)).T).square()
    chance[torch.arange(len(own)), own] = 0
    count = len(own) * (len(base) - 1)
    error = float(chance.sum() / count / len(own)) ** 0.5 if count else 0.0
    return size / error if error else float("inf") if size else 0.0


def unidentifiable(baselines: Baselines) -> frozenset[int]:
    """Returns the indices of the sources whose effect on their own prompts cannot be told from chance.

    A source that no prompt asks for alone is not judged, and none is if the pictures have no embeddings. A source with a single own prompt
    is judged by whether it changes anything.

    Example:
        >>> from objectives.objective import Pictures
        >>> def pictures(*vectors):
        ...     return Pictures(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), {EMBEDDINGS: torch.tensor(vectors)})
        >>> base, moved = pictures([0.0, 1.0], [0.1, 0.99]), pictures([1.0, 0.0], [0.99, 0.1])
        >>> unidentifiable(Baselines(base, (moved, base), torch.tensor([0, 1]), torch.tensor([0, 1])))
        frozenset({1})
    """
    if any(EMBEDDINGS not in pictures.features for pictures in baselines.all):
        return frozenset()
    alone = torch.stack([pictures.features[EMBEDDINGS] for pictures in baselines.alone])
    base = others(alone, baselines.asked) if baselines.base is None else baselines.base.features[EMBEDDINGS]
    effects = Effects(base, alone, baselines.asked)
    return frozenset(k for k in range(effects.sources) if bool((baselines.asked == k).any()) and not _identifiable(effects, k))


def _identifiable(effects: Effects, source: int) -> bool:
    own = effects.asked == source
    size = float((effects.alone[source, own] - effects.base[own]).square().sum(dim=1).mean())
    few = int(own.sum()) < _FEWEST
    return size >= NO_EFFECT and (few or standard_errors(effects, source) >= ERRORS)


def counted(left_out: frozenset[int], sources: int) -> Tensor | None:
    """Returns which sources count in the score, bool, (k,); None if all do."""
    return torch.tensor([k not in left_out for k in range(sources)]) if left_out else None
