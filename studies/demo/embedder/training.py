"""The embedder: a small OpenCLIP model of the demo world, the eye with which the search looks at pictures.

It is trained as CLIP is (Radford et al. 2021, https://arxiv.org/abs/2103.00020, figure 3) on drawings in random styles and
with random characters, never on those of the demo sources. So few pictures would not suffice for the contrastive loss alone:
a linear layer that reads what is drawn off the image embedding is trained with it and then dropped.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from studies.demo.base_model.tokenizer import MAX_LENGTH, build_tokenizer
from studies.demo.drawing.softening import soften
from studies.demo.embedder.pictures import CLASSES, GROUP, HELD, TINTS, Groups, caption, draw_groups
from studies.demo.training import Plan, fit

ASSET = Path(__file__).parent.parent / "assets" / "embedder"
PLAN = Plan(steps=3600, rate=2e-3, decay=0.05, seed=7, save_every=200)
_GROUPS, _BATCH = 6_500, 28
_WIDTH, _MIXED = 128, 0.2
_SIZES = [len(names) for names in CLASSES.values()]


def train_embedder(work: Path, scale: float) -> Path:
    """Draw the pictures, train, and write an OpenCLIP model directory; resumes from what ``work`` holds.

    Args:
        work: holds pictures and checkpoints.
        scale: length of the training, 1 = the real one.

    Returns:
        ``work / "embedder"``, for ``open_clip.create_model_and_transforms("local-dir:…")``.
    """
    torch.manual_seed(7)
    folder = work / "embedder"
    model = new_model(folder).train()
    facts = nn.Linear(_WIDTH, sum(_SIZES) + HELD + TINTS)
    groups = _groups(work / "embedder_pictures.npz", round(_GROUPS * max(scale, 0.01)))
    words = open_clip.get_tokenizer(f"local-dir:{folder}")

    def loss(rng: np.random.Generator) -> Tensor:
        return _loss(model, facts, groups, words, rng)

    fit([model, facts], loss, replace(PLAN, steps=round(PLAN.steps * scale)), work / "embedder.pt")
    _settle(model, groups)
    save_file({name: _stored(value) for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def new_model(folder: Path) -> open_clip.CLIP:
    """Write tokenizer and configuration into ``folder`` and build the untrained model."""
    config = _config(len(build_tokenizer(folder)))
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return open_clip.CLIP(**config["model_cfg"])


def _config(vocabulary: int) -> dict[str, Any]:
    """An image tower like CLIP's ResNet, a causal text tower, and pictures scaled to [-1, 1]."""
    return {
        "model_cfg": {
            "embed_dim": _WIDTH,
            "vision_cfg": {"image_size": 64, "layers": [1, 2, 2, 1], "width": 20, "head_width": 64},
            "text_cfg": {
                "context_length": MAX_LENGTH,
                "vocab_size": vocabulary,
                "hf_tokenizer_name": "demo",
                "width": 96,
                "heads": 4,
                "layers": 2,
            },
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"},
    }


def _groups(path: Path, count: int) -> Groups:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **draw_groups(count, seed=7).arrays())
    with np.load(path) as arrays:
        return Groups(**arrays)


def _loss(model: open_clip.CLIP, facts: nn.Linear, groups: Groups, words: open_clip.HFTokenizer, rng: np.random.Generator) -> Tensor:
    """The contrastive loss on whole pictures and on mixes of two of a group, and the facts of the whole ones."""
    rows = rng.choice(len(groups), _BATCH, replace=False)
    captions = [caption(groups.parts[row, i], int(groups.key[row]), rng) for row in rows for i in range(GROUP)]
    share = np.where(rng.random(_BATCH * GROUP) < _MIXED, rng.random(_BATCH * GROUP), 0)
    images, whole = _pictures(groups, rows), torch.from_numpy(share == 0)
    mixed = soften(_mix(images, torch.from_numpy(share).float()), rng)
    with torch.autocast("cpu", torch.bfloat16):
        seen, said = model.encode_image(mixed), model.encode_text(words(captions))
    seen, said = F.normalize(seen.float(), dim=-1), F.normalize(said.float(), dim=-1)
    target = _mix(_equal(captions), torch.from_numpy(share).float())
    return _contrast(seen, said, model.logit_scale, target) + 0.5 * _facts(facts(8 * seen), groups, rows, whole)


def _pictures(groups: Groups, rows: np.ndarray) -> Tensor:
    """The pictures of some groups, (4 n, 3, 64, 64) in [-1, 1]."""
    return torch.from_numpy(groups.pictures[rows]).flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1


def _mix(values: Tensor, share: Tensor) -> Tensor:
    """Returns the rows, each mixed with a ``share`` of the next row of its group."""
    following = values.reshape(-1, GROUP, *values.shape[1:]).roll(1, dims=1).flatten(0, 1)
    return values + (following - values) * share.view(-1, *[1] * (values.ndim - 1))


def _equal(captions: list[str]) -> Tensor:
    """For each picture how much every caption is its own, float32 (n, n), rows sum to 1: equal captions share."""
    _, number = np.unique(captions, return_inverse=True)
    equal = torch.from_numpy((number[:, None] == number[None]).astype(np.float32))
    return equal / equal.sum(dim=1, keepdim=True)


def _contrast(seen: Tensor, said: Tensor, logit_scale: Tensor, target: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy."""
    logits = logit_scale.clamp(max=float(np.log(100))).exp() * seen @ said.T
    back = target.T / target.sum(dim=0)[:, None].clamp(min=1e-3)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, back)) / 2


def _facts(logits: Tensor, groups: Groups, rows: np.ndarray, whole: Tensor) -> Tensor:
    """What is drawn in the ``whole`` pictures, read off the embedding: classes, objects, and the colours of what is on them."""
    classes, held, tints = (torch.from_numpy(a[rows]).flatten(0, 1)[whole] for a in (groups.classes, groups.held, groups.tints))
    *named, things, colours = torch.split(logits[whole], [*_SIZES, HELD, TINTS], dim=1)
    present = [(n, c) for n, c in zip(named, classes.unbind(dim=1), strict=True) if (c >= 0).any()]
    known = ~tints.isnan()
    return (
        torch.stack([F.cross_entropy(n, c, ignore_index=-1) for n, c in present]).mean()
        + 2 * F.binary_cross_entropy_with_logits(things, held)
        + (F.mse_loss(colours[known], tints[known]) if known.any() else 0.0)
    )


@torch.no_grad()
def _settle(model: open_clip.CLIP, groups: Groups, batches: int = 24) -> None:
    """Measure the batch normalisation's statistics afresh, for the averaged weights."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    rng = np.random.default_rng(8)
    for _ in range(batches):
        rows = rng.integers(len(groups), size=_BATCH)
        model.train().encode_image(soften(_pictures(groups, rows), rng))
    model.eval()


def _stored(value: Tensor) -> Tensor:
    return value.half().contiguous() if value.is_floating_point() else value.contiguous()
