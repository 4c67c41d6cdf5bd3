"""Familiarity: whether a merge's pictures lie near anything that base and sources draw, as near as those lie to each other.

Preservation asks in which direction a merge's pictures lie, not how far away: pictures of noise may lie in the direction of a source.
What base and sources draw for different prompts differs, too, and gives the unit in which the distance is measured: a merge that draws
something lies about as near to the nearest reference picture as those do to each other, one that has broken down lies much farther away.
The more references there are, the nearer is the nearest one, to another reference sooner than to a merge. So the distance is that to the
nearest of ``AMONG`` references, averaged over all ways to draw so many of them.

The nearest neighbour among reference features is that of Gu et al., *GIQA* (arXiv 2003.08932) and *PatchCore* (arXiv 2106.08265).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.objective import EMBEDDINGS, Baselines, Objective, Outcome, Pictures, weighted_mean

AMONG = 24
"""Number of reference pictures that a distance is to the nearest of, so that it does not depend on how many there are."""
# Of 341 pictures on joint prompts in which the probes read at least 0.3 of every source, 95 % lie below 1.53. Of pictures of noise, 95 %
# lie above 2.5, of those with all sources at twice their strength half above 2.39 (groups of benchmarks.agreement to choose on).
TOLERATED = 1.55
"""Relative distance up to which a picture counts in full."""
HALVING = 0.35
"""Excess over ``TOLERATED`` at which a picture counts half."""
_FLOOR = 1e-4  # smallest unit of distance: references that are all alike say nothing


@dataclass(frozen=True)
class Neighbourhood:
    """Reference pictures.

    Attributes:
        vectors: embeddings of the pictures of base and sources, unit vectors, (m, d).
        unit: mean cosine distance of these pictures to the nearest of ``AMONG`` of another prompt text, greater than 0.
    """

    vectors: Tensor
    unit: float


class FamiliarityObjective(Objective[Neighbourhood, Tensor]):
    """Distance of a merge's pictures from the nearest pictures of base and sources; it discounts the score by ``familiar_share``.

    The factor is the mean of ``familiar_share`` over the pictures. The outcome has the value ``distance``: the mean cosine distance of the
    pictures to their nearest reference pictures, in units of the references' own distances, at least 0.

    Example:
        >>> line = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.4, 0.0], [1.0, 0.8, 0.0]]), dim=1)
        >>> images, asked = torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, -1])
        >>> near, far = (Pictures(images, {"embeddings": vectors}) for vectors in (line, torch.eye(3)[[2, 2, 2]]))
        >>> objective = FamiliarityObjective()
        >>> reference = objective.reference(Baselines(near, (near, near), asked, torch.arange(3)))
        >>> [round(float(objective.compare(objective.measure(x, reference), reference).factor), 2) for x in (near, far)]
        [1.0, 0.0]
    """

    name = "familiarity"
    version = 2
    needs = frozenset({EMBEDDINGS})

    def reference(self, baselines: Baselines) -> Neighbourhood:
        """Returns the embeddings of the pictures of base and sources, and their distances to each other."""
        vectors = torch.cat([pictures.features[EMBEDDINGS].flatten(1) for pictures in baselines.all])
        return Neighbourhood(vectors, own_distance(vectors, baselines.texts.repeat(len(baselines.all))))

    def measure(self, pictures: Pictures, reference: Neighbourhood) -> Tensor:
        """Returns the cosine distance of each picture to the nearest reference picture, in units of the references' own, float64, (n,)."""
        return nearest(pictures.features[EMBEDDINGS].flatten(1), reference.vectors) / reference.unit

    def compare(self, measurement: Tensor, reference: Neighbourhood, counts: Tensor | None = None) -> Outcome:
        """Returns factor and distance, float64, each (...)."""
        factor, distance = (weighted_mean(values, counts) for values in (familiar_share(measurement), measurement))
        return Outcome(factor=factor, values={"distance": distance})


def familiar_share(distance: Tensor) -> Tensor:
    """Returns how much pictures at these relative distances count, in (0, 1], (...) → (...).

    1 up to ``TOLERATED``; beyond it 1 / (1 + (excess / HALVING)²).

    Example:
        >>> [round(x, 2) for x in familiar_share(torch.tensor([1.0, 1.55, 1.9, 3.0])).tolist()]
        [1.0, 1.0, 0.5, 0.06]
    """
    return 1 / (1 + ((distance - TOLERATED).clamp(min=0) / HALVING) ** 2)


def nearest(vectors: Tensor, references: Tensor) -> Tensor:
    """Returns the expected cosine distance of each vector to the nearest of ``AMONG`` references, or of all if there are fewer.

    Args:
        vectors: unit vectors, (n, d).
        references: unit vectors, (m, d).

    Returns:
        Distances in [0, 2], float64, (n,).
    """
    return _expected_minimum((1 - vectors.double() @ references.double().T).clamp(min=0))


def own_distance(vectors: Tensor, texts: Tensor) -> float:
    """Returns the mean of the cosine distances of reference pictures to the nearest of ``AMONG`` reference pictures of another prompt text.

    If all prompts have one text, the other pictures are compared.

    Args:
        vectors: unit vectors, (m, d).
        texts: index of the prompt text of each, (m,).

    Returns:
        The distance, at least 0.0001.
    """
    distances = (1 - vectors.double() @ vectors.double().T).clamp(min=0)
    same = (texts[:, None] == texts[None]).to(distances.device)
    left_out = torch.eye(len(texts), dtype=torch.bool, device=distances.device) if bool(same.all()) else same
    return max(float(_expected_minimum(distances.masked_fill(left_out, torch.inf)).mean()), _FLOOR)


def _expected_minimum(distances: Tensor) -> Tensor:
    """Returns the mean, over all ways to draw ``AMONG`` finite distances of a row without replacement, of the least of them, (n, m) → (n,).

    Of c distances in ascending order, the i-th is the least of a drawn ones with the probability C(c − i, a − 1) / C(c, a).
    """
    ordered = distances.sort(dim=1).values
    count = torch.isfinite(ordered).sum(dim=1, keepdim=True).double()
    among = count.clamp(max=AMONG)
    after = count - torch.arange(1, ordered.shape[1] + 1, device=ordered.device)
    possible = after >= among - 1
    chance = (_log_choose(after.where(possible, count), among - 1) - _log_choose(count, among)).exp()
    return (chance * possible * ordered.nan_to_num(posinf=0)).sum(dim=1)


def _log_choose(count: Tensor, drawn: Tensor) -> Tensor:
    """Returns the logarithm of the number of ways to draw some of a number of things."""
    return torch.lgamma(count + 1) - torch.lgamma(drawn + 1) - torch.lgamma(count - drawn + 1)
