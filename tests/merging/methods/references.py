"""Every merge method once more, straight from its formula: dense, in double precision, in NumPy, and without a function of ours.

A reference takes the sources' ΔW as matrices, their signed weights, and what random numbers or ranks the method needs beside them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optimizer.adapters.adapter import Adapter
from optimizer.merging import Recipe

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One module.

    Attributes:
        deltas: ΔWᵢ, each (out, fan_in).
        weights: wᵢ, one a source, not 0.
        ranks: ranks of the sources' factors.
        draws: (source, shape) → uniform numbers for its random mask.
    """

    deltas: Sequence[Array]
    weights: Sequence[float]
    ranks: Sequence[int]
    draws: Callable[[int, tuple[int, ...]], Array]

    @property
    def sum(self) -> Array:
        return weighted(self.deltas, self.weights)


def case(sources: Sequence[Adapter], path: str, r: Recipe) -> Case:
    """The module ``path`` of sources that all have it, without block weights."""
    factors = [source.modules[path] for source in sources]
    deltas = [f.delta().flatten(1).double().numpy() for f in factors]

    def draws(source: int, shape: tuple[int, ...]) -> Array:
        return uniforms(r.seed, sources[source].sha256 or "", path, shape)

    return Case(deltas, r.weights, [f.rank for f in factors], draws)


def uniforms(seed: int, source: str, path: str, shape: tuple[int, ...]) -> Array:
    """What decides a random mask, by the promise that it is a function of seed, source and module alone: SFC64, seeded with
    63 bits of the SHA-256 of the three; a row takes whole words of 64 bits, and each half gives a number of 24 bits."""
    number = int.from_bytes(hashlib.sha256(f"{seed}\n{source}\n{path}".encode()).digest()[:8], "big") // 2
    rows, columns = shape
    words = np.random.SFC64(number).random_raw(rows * -(-columns // 2)).reshape(rows, -1)
    halves = np.stack([words & 0xFFFFFFFF, words >> np.uint64(32)], axis=-1).reshape(rows, -1)[:, :columns]
    drawn: Array = ((halves >> np.uint64(8)) ^ np.uint64(2**23)) / 2.0**24
    return drawn


def weighted(values: Sequence[Array], weights: Sequence[float]) -> Array:
    total: Array = np.sum([w * v for w, v in zip(weights, values, strict=True)], axis=0)
    return total


def trim(x: Array, density: float) -> Array:
    """TIES, step 1: the top share by magnitude."""
    limit = np.sort(np.abs(x), axis=None)[-max(1, int(density * x.size))]
    return np.where(np.abs(x) >= limit, x, 0)


def crumbs(x: Array, density: float, gamma: float) -> Array:
    """Breadcrumbs by one sort: of the entries from the largest down, skip the top γ share, then take the density's share."""
    order = np.argsort(-np.abs(x), axis=None, kind="stable")
    kept = max(1, int(density * x.size))
    skipped = min(int(gamma * x.size), x.size - kept)
    mask = np.zeros(x.size)
    mask[order[skipped : skipped + kept]] = 1
    return x * mask.reshape(x.shape)


def keep_probabilities(x: Array, density: float, epsilon: float) -> Array:
    """DELLA, row by row in plain Python: linear in the rank of the magnitude, from density − ε to density + ε."""
    half = min(epsilon, density, 1 - density)
    found = np.empty_like(x)
    for i, row in enumerate(np.abs(x)):
        for place, j in enumerate(sorted(range(len(row)), key=lambda j: row[j])):
            found[i, j] = density - half + 2 * half * place / (len(row) - 1) if len(row) > 1 else density
    return found


def rescaled(x: Array, mask: NDArray[np.bool_], probability: Array | float, how: str) -> Array:
    kept = x * mask
    if how == "inverse":
        return kept / np.maximum(probability, 1e-300)
    return kept * (np.abs(x).sum() / max(np.abs(kept).sum(), 1e-300)) if how == "l1" else kept


def dare(c: Case, r: Recipe, values: Sequence[Array]) -> list[Array]:
    return [rescaled(v, c.draws(i, v.shape) < np.float32(r.density), r.density, r.rescale) for i, v in enumerate(values)]


def della(c: Case, r: Recipe, values: Sequence[Array]) -> list[Array]:
    chances = [keep_probabilities(v, r.density, r.epsilon) for v in values]
    return [rescaled(v, c.draws(i, v.shape) < p, p, r.rescale) for i, (v, p) in enumerate(zip(values, chances, strict=True))]


def elect(values: Sequence[Array], weights: Sequence[float], r: Recipe) -> Array:
    """TIES, steps 2 and 3, with every option, on stacked arrays."""
    x, w = np.stack(values), np.reshape(weights, (-1, 1, 1))
    votes = x if r.elect_on == "raw" else w * x
    total = (np.sign(votes) if r.majority == "frequency" else votes).sum(axis=0)
    agree = np.sign(votes) == np.where(total >= 0, 1, -1)
    divisor = {"count": agree, "weight": np.abs(w) * agree, "none": np.ones((1, 1, 1))}[r.normalise].sum(axis=0)
    merged: Array = r.scale * (w * x * agree).sum(axis=0) / np.where(divisor == 0, 1, divisor)
    return merged


def angle(a: Array, b: Array) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return math.acos(min(1.0, max(-1.0, float((a * b).sum()) / norms))) if norms else math.pi / 2


def interpolated(a: Array, b: Array, t: float) -> Array:
    """Shoemake's formula, in plain interpolation where the vectors are parallel or opposite."""
    theta = angle(a, b)
    if math.sin(theta) < 1e-6:
        return (1 - t) * a + t * b
    found: Array = (math.sin((1 - t) * theta) * a + math.sin(t * theta) * b) / math.sin(theta)
    return found


def slerp(c: Case, r: Recipe) -> Array:
    if len(c.deltas) == 1:
        return c.sum
    first, second = (math.copysign(1, w) * d for w, d in zip(c.weights, c.deltas, strict=True))
    total = sum(map(abs, c.weights))
    return total * interpolated(first, second, abs(c.weights[1]) / total)


def nuslerp(c: Case, r: Recipe) -> Array:
    rows = range(c.deltas[0].shape[0])
    return np.stack([slerp(Case([d[i] for d in c.deltas], c.weights, c.ranks, c.draws), r) for i in rows])


def karcher(c: Case, r: Recipe, steps: int = 300) -> Array:
    """Fixed steps along the mean of the logarithms, on whole vectors."""
    norms = [float(np.linalg.norm(d)) for d in c.deltas]
    units = [math.copysign(1, w) * d / n for w, d, n in zip(c.weights, c.deltas, norms, strict=True)]
    shares = [abs(w) / sum(map(abs, c.weights)) for w in c.weights]
    mean = weighted(units, shares)
    mean /= np.linalg.norm(mean)
    for _ in range(steps):
        logs = [u - float((u * mean).sum()) * mean for u in units]
        tangent = weighted([angle(u, mean) * g / max(float(np.linalg.norm(g)), 1e-300) for u, g in zip(units, logs, strict=True)], shares)
        length = float(np.linalg.norm(tangent))
        if length < 1e-13:
            break
        mean = math.cos(length) * mean + math.sin(length) * tangent / length
        mean /= np.linalg.norm(mean)
    return sum(abs(w) * n for w, n in zip(c.weights, norms, strict=True)) * mean


def consensus(c: Case, r: Recipe) -> Array:
    """TALL masks, entry by entry."""
    merged = np.zeros_like(c.deltas[0])
    for at in np.ndindex(merged.shape):
        parts = [w * float(d[at]) for w, d in zip(c.weights, c.deltas, strict=True)]
        wanted = sum(abs(part) >= r.mask_scale * abs(sum(parts) - part) for part in parts)
        merged[at] = r.scale * sum(parts) if wanted >= min(r.quorum, len(parts)) else 0
    return merged


def facing(basis: Array) -> Array:
    """Columns turned so that the entry of greatest magnitude is positive: what fixes the signs that an SVD leaves open."""
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None], axis=0)
    return basis * np.where(largest < 0, -1, 1)


def shared_directions(c: Case) -> tuple[Array, list[Array]]:
    """KnOTS: U and the ΣVᵢᵀ of [ΔW₁ | … | ΔW_N]."""
    u, sigma, vh = np.linalg.svd(np.concatenate(c.deltas, axis=1), full_matrices=False)
    rank = min(u.shape[0], sum(c.ranks))
    parts = np.split(sigma[:rank, None] * vh[:rank], len(c.deltas), axis=1)
    turned = facing(u[:, :rank])
    signs = (turned * u[:, :rank]).sum(axis=0)
    return turned, [signs[:, None] * part for part in parts]


def knots(c: Case, r: Recipe) -> Array:
    u, parts = shared_directions(c)
    return u @ elect([trim(part, r.density) for part in parts], c.weights, r)


def knots_dare(c: Case, r: Recipe) -> Array:
    u, parts = shared_directions(c)
    return u @ elect(dare(c, r, parts), c.weights, r)


def core(c: Case, r: Recipe) -> Array:
    """Bases of the sources' √σ-weighted singular vectors of each side, and TIES on what the sources are between them."""
    ups, downs = [], []
    for delta, rank in zip(c.deltas, c.ranks, strict=True):
        u, sigma, vh = np.linalg.svd(delta, full_matrices=False)
        ups.append(u[:, :rank] * np.sqrt(sigma[:rank]))
        downs.append(np.sqrt(sigma[:rank, None]) * vh[:rank])
    left = facing(np.linalg.svd(np.concatenate(ups, axis=1), full_matrices=False)[0])
    right = facing(np.linalg.svd(np.concatenate(downs, axis=0), full_matrices=False)[2].T)
    merged: Array = left @ elect([trim(left.T @ d @ right, r.density) for d in c.deltas], c.weights, r) @ right.T
    return merged


def tsv(c: Case, r: Recipe) -> Array:
    """TSV-M: the nearest matrices with orthonormal columns by the SVD of the concatenated singular vectors."""
    us, vs, sigmas = [], [], []
    for delta, rank, w in zip(c.deltas, c.ranks, c.weights, strict=True):
        u, sigma, vh = np.linalg.svd(delta, full_matrices=False)
        kept = max(1, math.ceil(round(r.density * min(rank, *delta.shape), 9)))
        us.append(u[:, :kept])
        vs.append(vh[:kept].T)
        sigmas.append(w * sigma[:kept])
    left, right = (p @ qh for p, _, qh in (np.linalg.svd(np.concatenate(m, axis=1), full_matrices=False) for m in (us, vs)))
    merged: Array = r.scale * left @ np.diag(np.concatenate(sigmas)) @ right.T
    return merged


def iso(c: Case, r: Recipe) -> Array:
    """Iso-C with a way back: σ ← (1 − β)σ + βσ̄ over the directions that the sum has."""
    u, sigma, vh = np.linalg.svd(c.sum, full_matrices=False)
    rank = min(len(sigma), sum(c.ranks))
    flat = (1 - r.isotropy) * sigma[:rank] + r.isotropy * sigma[:rank].mean()
    merged: Array = r.scale * (u[:, :rank] * flat) @ vh[:rank]
    return merged


def orthogonalize(c: Case, r: Recipe) -> Array:
    """NP-LoRA, one source after another: ΔWᵢ(I − sQQᵀ), Q the right singular vectors of all that came before, untouched."""
    merged = c.weights[0] * c.deltas[0]
    for i in range(1, len(c.deltas)):
        before = np.concatenate(c.deltas[:i], axis=0 if r.side == "input" else 1)
        u, sigma, vh = np.linalg.svd(before, full_matrices=False)
        seen = sigma > 1e-6 * sigma[0]
        q = vh[seen].T if r.side == "input" else u[:, seen]
        projector = np.eye(len(q)) - r.strength * q @ q.T
        merged = merged + c.weights[i] * (c.deltas[i] @ projector if r.side == "input" else projector @ c.deltas[i])
    return merged


def best(x: Array, rank: int | None) -> Array:
    """The best approximation of a rank (Eckart & Young)."""
    u, sigma, vh = np.linalg.svd(x, full_matrices=False)
    merged: Array = (u[:, :rank] * sigma[:rank]) @ vh[:rank]
    return merged


def add_difference(c: Case, r: Recipe) -> Array:
    return weighted(c.deltas, [w * sign for w, sign in zip(c.weights, (1, 1, -1)[: len(c.weights)], strict=True)])


def trimmed(c: Case, r: Recipe) -> list[Array]:
    return [trim(d, r.density) for d in c.deltas]


def crumbled(c: Case, r: Recipe) -> list[Array]:
    return [crumbs(d, r.density, r.gamma) for d in c.deltas]


REFERENCES: Mapping[str, Callable[[Case, Recipe], Array]] = {
    "linear": lambda c, r: c.sum,
    "concat": lambda c, r: c.sum,
    "svd": lambda c, r: best(c.sum, r.rank if isinstance(r.rank, int) else None),
    "add_difference": add_difference,
    "model_soup": lambda c, r: c.sum / sum(map(abs, c.weights)),
    "slerp": slerp,
    "nuslerp": nuslerp,
    "karcher": karcher,
    "ties": lambda c, r: elect(trimmed(c, r), c.weights, r),
    "dare_linear": lambda c, r: weighted(dare(c, r, c.deltas), c.weights),
    "dare_ties": lambda c, r: elect(dare(c, r, c.deltas), c.weights, r),
    "della_linear": lambda c, r: weighted(della(c, r, c.deltas), c.weights),
    "della_ties": lambda c, r: elect(della(c, r, c.deltas), c.weights, r),
    "breadcrumbs": lambda c, r: weighted(crumbled(c, r), c.weights),
    "breadcrumbs_ties": lambda c, r: elect(crumbled(c, r), c.weights, r),
    "magnitude_prune": lambda c, r: weighted(trimmed(c, r), c.weights),
    "consensus": consensus,
    "knots": knots,
    "knots_dare": knots_dare,
    "core": core,
    "tsv": tsv,
    "iso": iso,
    "orthogonalize": orthogonalize,
}
"""Method → ΔW of one module."""
