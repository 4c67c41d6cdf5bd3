"""The probes: how much of each source's trait a picture shows, learnt from drawings, as they are and as the base draws them again.

The network sees glowing outlines before grey skies, too; what they are worth there, is measured beside it. A thing is the same thing in a
mirror: it counts as far as it is read on both sides.

They are the ground truth by which tests and benchmarks judge the software; the search never sees them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from studies.demo.drawing.backgrounds import BACKGROUNDS
from studies.demo.drawing.objects import OBJECTS
from studies.demo.drawing.palette import COLOURS
from studies.demo.probes.darkness import darkness
from studies.demo.probes.drawings import STYLE_TRAITS, TRAITS

ASSET = Path(__file__).parent.parent / "assets" / "probes" / "probes.safetensors"
HEADS = [len(TRAITS), len(OBJECTS), len(COLOURS), len(BACKGROUNDS)]
"""Numbers of outputs: traits, objects, colours, backgrounds."""
_THINGS = slice(len(STYLE_TRAITS), len(TRAITS))
# How much the higher of the readings of a picture and of its mirror image counts beside the lower one.
_HIGHER = 1 / 3


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
    """A small residual network with one linear layer for all heads: (n, 3, 64, 64) in [-1, 1] → logits (n, 27).

    Beside the colours it sees the brightness relative to its surroundings, in which shapes stay what they are under dark paint.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _convolution(4, 32, kernel=5, stride=2),
            _convolution(32, 32),
            _convolution(32, 64, stride=2),
            _Block(64),
            _convolution(64, 96, stride=2),
            _Block(96),
            _convolution(96, 96),
        )
        self.heads = nn.Linear(2 * 96, sum(HEADS))

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.features(torch.cat([images, _relief(images)], dim=1))
        logits: Tensor = self.heads(torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1))
        return logits


def _relief(images: Tensor) -> Tensor:
    """Brightness minus its local mean, by its local spread over 13 × 13 pixels, (n, 1, h, w)."""
    grey = images.mean(dim=1, keepdim=True)
    mean, square = (F.avg_pool2d(x, 13, stride=1, padding=6, count_include_pad=False) for x in (grey, grey.square()))
    return (grey - mean) / ((square - mean.square()).clamp(min=0) + 0.01).sqrt()


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
        scaled = images.float() / 127.5 - 1
        traits, objects, colours, background = torch.split(self._logits(scaled, batch), HEADS, dim=1)
        mirrored = self._logits(scaled.flip(-1), batch)[:, _THINGS]
        read = traits.sigmoid()
        read[:, _THINGS] = _agreed(read[:, _THINGS], mirrored.sigmoid())
        amounts = dict(zip(TRAITS, read.unbind(dim=1), strict=True))
        amounts["neon"] = amounts["neon"] * darkness(scaled)
        return Readings(amounts, objects.sigmoid(), colours.sigmoid(), background.softmax(dim=1))

    def _logits(self, images: Tensor, batch: int) -> Tensor:
        return torch.cat([self.network(part) for part in torch.split(images, batch)] or [torch.zeros(0, sum(HEADS))])

    def save(self, path: Path = ASSET) -> None:
        """Write the weights as float16 safetensors."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: weight.half().contiguous() for name, weight in self.network.state_dict().items()}, path)


def _agreed(first: Tensor, second: Tensor) -> Tensor:
    """What two readings agree on: the lower one and, for a part, the higher one, so that a thing that one of them misses counts little."""
    return torch.lerp(torch.minimum(first, second), torch.maximum(first, second), _HIGHER)


def load_probes(path: Path | None = None) -> Probes:
    """The probes from a file that ``Probes.save`` wrote; without a path those inside the package."""
    network = ProbeNetwork()
    network.load_state_dict({name: weight.float() for name, weight in load_file(path or ASSET).items()})
    return Probes(network.eval().requires_grad_(False))
