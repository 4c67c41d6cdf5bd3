"""The probes: how much of each source's trait a picture shows, learnt from drawings only.

They are the ground truth by which tests and benchmarks judge the software; the search never sees them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from studies.demo.backgrounds import BACKGROUNDS
from studies.demo.objects import OBJECTS
from studies.demo.palette import COLOURS
from studies.demo.probe_pictures import TRAITS, Pool, draw_pool
from studies.demo.softening import smear, soften
from studies.demo.training import Plan, fit, to_tensor

ASSET = Path(__file__).parent / "assets" / "probes" / "probes.safetensors"
PLAN = Plan(steps=6000, rate=3e-3, decay=0.02, seed=5, save_every=250)
_PAIRS, _BATCH = 18_000, 64
_HEADS = [len(TRAITS), len(OBJECTS), len(COLOURS), len(BACKGROUNDS)]


@dataclass(frozen=True)
class Readings:
    """What n pictures show.

    Attributes:
        traits: for each of ``TRAITS`` the amount shown, float32 (n,) in [0, 1].
        objects: probability that each of ``OBJECTS`` is there, float32 (n, 8).
        colours: probability that an object has each of ``COLOURS``, float32 (n, 6); means nothing where a style repaints.
        background: probability of each of ``BACKGROUNDS``, float32 (n, 6), rows sum to 1.
    """

    traits: dict[str, Tensor]
    objects: Tensor
    colours: Tensor
    background: Tensor


class _Block(nn.Module):
    """Two convolutions around a residual path."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(width, width), nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.GroupNorm(8, outputs), nn.ReLU())


class ProbeNetwork(nn.Module):
    """A small residual network with one linear layer for all heads: (n, 3, 64, 64) in [-1, 1] → logits (n, 27)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _convolution(3, 24, kernel=5, stride=2),
            _convolution(24, 32),
            _convolution(32, 64, stride=2),
            _Block(64),
            _convolution(64, 88, stride=2),
            _Block(88),
        )
        self.heads = nn.Linear(2 * 88, sum(_HEADS))

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.features(images).float()
        logits: Tensor = self.heads(torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1))
        return logits


@dataclass(frozen=True)
class Probes:
    """The trained network, ready to read pictures."""

    network: ProbeNetwork

    @torch.no_grad()
    def read(self, images: Tensor, batch: int = 256) -> Readings:
        """What the pictures show.

        Args:
            images: uint8 (n, 3, 64, 64).
            batch: pictures at a time.

        Raises:
            ValueError: the pictures have another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (3, 64, 64):
            raise ValueError(f"probes read uint8 pictures of shape (n, 3, 64, 64), not {images.dtype} of shape {tuple(images.shape)}")
        logits = torch.cat([self.network(part.float() / 127.5 - 1) for part in torch.split(images, batch)] or [torch.zeros(0, sum(_HEADS))])
        traits, objects, colours, background = torch.split(logits, _HEADS, dim=1)
        amounts = dict(zip(TRAITS, traits.sigmoid().unbind(dim=1), strict=True))
        return Readings(amounts, objects.sigmoid(), colours.sigmoid(), background.softmax(dim=1))

    def save(self, path: Path = ASSET) -> None:
        """Write the weights as float16 safetensors."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: weight.half().contiguous() for name, weight in self.network.state_dict().items()}, path)


def load_probes(path: Path | None = None) -> Probes:
    """The probes from a file that ``Probes.save`` wrote; without a path those inside the package."""
    network = ProbeNetwork()
    network.load_state_dict({name: weight.float() for name, weight in load_file(path or ASSET).items()})
    return Probes(network.eval().requires_grad_(False))


def train_probes(work: Path, scale: float) -> Probes:
    """Draw the pictures and train the network; resumes from what ``work`` holds.

    Args:
        work: holds pictures and checkpoints.
        scale: length of the training, 1 = the real one.
    """
    torch.manual_seed(5)
    network, pool = ProbeNetwork().train(), _pool(work / "probe_pictures.npz", round(_PAIRS * max(scale, 0.01)))

    def loss(rng: np.random.Generator) -> Tensor:
        return _loss(network, pool, rng)

    fit([network], loss, replace(PLAN, steps=round(PLAN.steps * scale)), work / "probes.pt")
    return Probes(network.eval().requires_grad_(False))


def _pool(path: Path, count: int) -> Pool:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **draw_pool(count, seed=5).arrays())
    with np.load(path) as arrays:
        return Pool(**arrays)


def _loss(network: ProbeNetwork, pool: Pool, rng: np.random.Generator) -> Tensor:
    """Cross-entropy of every head on a batch of drawings and cross-fades; a trait's target is the amount shown."""
    rows = rng.integers(len(pool), size=_BATCH)
    share, amount = _fades(pool.blend[rows], rng)
    first, second = (to_tensor(pool.pictures[rows, i]) for i in (0, 1))
    images = soften(smear(first + (second - first) * share, rng), rng)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images)
    traits, objects, colours, background = torch.split(logits, _HEADS, dim=1)
    wanted = [_between(a[rows], amount) for a in (pool.traits, pool.objects, pool.colours)]
    clear = (amount == 0) & torch.from_numpy(pool.plain[rows, 0]) | (amount == 1) & torch.from_numpy(pool.plain[rows, 1])
    place = torch.from_numpy(pool.background[rows, (amount > 0.5).long().numpy()])
    return (
        3 * F.binary_cross_entropy_with_logits(traits, wanted[0])
        + F.binary_cross_entropy_with_logits(objects, wanted[1])
        + F.binary_cross_entropy_with_logits(colours[clear], wanted[2][clear])
        + 0.3 * F.cross_entropy(background, place)
    )


def _fades(blend: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Shares of the second drawing, (n, 1, 64, 64), and their means over the picture, (n,).

    A third of the pairs each gives the first drawing, the second, and, where that has a meaning, a fade between them: even,
    or, for styles, from one side of the picture to the other.
    """
    n = len(blend)
    faded = (rng.random(n) < 0.34) & (blend > 0)
    even = np.where(faded, rng.random(n), rng.integers(0, 2, n)).astype(np.float32)
    angle, offset, width = rng.uniform(0, 2 * np.pi, n), rng.uniform(-0.5, 0.5, n), rng.uniform(0.02, 0.3, n)
    y, x = np.mgrid[-0.5:0.5:64j, -0.5:0.5:64j]
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y
    sided = 1 / (1 + np.exp((offset[:, None, None] - along) / width[:, None, None]))
    use = (faded & (blend == 2) & (rng.random(n) < 0.4))[:, None, None]
    share = torch.from_numpy(np.where(use, sided, even[:, None, None]).astype(np.float32))
    return share[:, None], share.mean(dim=(1, 2))


def _between(values: np.ndarray, amount: Tensor) -> Tensor:
    first, second = torch.from_numpy(values).unbind(dim=1)
    return first + (second - first) * amount[:, None]
