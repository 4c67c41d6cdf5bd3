"""What an evaluation depends on besides its recipe, and whether a study may go on with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import torch

from optimizer.adapters.files.base_location import located
from optimizer.adapters.files.digest import digest_file
from optimizer.errors import StudyError
from optimizer.rendering import PromptSet, RenderSettings
from optimizer.rendering.fake_spec import FakeSpec, is_fake
from optimizer.search.config import PARTS, Config
from optimizer.search.proposals.space import SearchSpace
from optimizer.search.sources.source import Source

# Raise it whenever the same pictures would be scored differently.
SCORER = 1
_SLICES = ("vae_slicing", "attention_slicing")
NO_PARTS: Mapping[str, str] = MappingProxyType({})
# Raise it whenever prompts with weights, or longer than CLIP reads at once, are drawn differently.
EMPHASIS = 1
_PLACES = {"out", "workers", "storage", "study", "artifacts"}
_FREE = _PLACES | {"budget", "timeout", "force", "confirm", "finalists", "batch", "dialect", "keep_images", "fork", "offload", *_SLICES}


def evaluation_context(
    base: str,
    prompts: PromptSet,
    settings: RenderSettings,
    embedder: str,
    precision: str,
    parts: Mapping[str, str] = NO_PARTS,
    *,
    special: bool = False,
    based: bool = True,
) -> dict[str, object]:
    """JSON-ready parts of an evaluation's key.

    Args:
        base: where it is.
        prompts: of the search.
        settings: of the pictures.
        embedder: the eye.
        precision: of the renderer.
        parts: the places of models that stand in for the base's, by what they are.
        special: whether a prompt has weights, or is longer than CLIP reads at once. Evaluations of plain prompts, which are drawn as they
            always were, keep the key that they had before there were others.
        based: whether effects are measured from the base's pictures, rather than from those of the other sources.
    """
    other: dict[str, object] = {part: folder_fingerprint(Path(place)) for part, place in parts.items() if place}
    other |= {"emphasis": EMPHASIS} if special else {}
    other |= {} if based else {"zero": "the other sources"}
    return {
        "scorer": SCORER,
        "base": FakeSpec.of(base).identity if is_fake(base) else folder_fingerprint(located(base)),
        "prompts": [[p.text, p.seed, -1 if p.source is None else p.source] for p in prompts.prompts],
        "steps": settings.steps,
        "guidance": settings.guidance,
        "negative": settings.negative,
        "resolution": settings.resolution or 0,
        "scheduler": settings.scheduler,
        "clip_skip": settings.clip_skip or 0,
        "embedder": folder_fingerprint(Path(embedder)) if Path(embedder).is_dir() else embedder,
        "precision": precision,
        "libraries": [torch.__version__.split("+")[0], version("diffusers")],
        **other,
    }


def study_inputs(context: Mapping[str, object], sources: Sequence[Source], space: SearchSpace) -> dict[str, str]:
    """What a study rests on, files by digest, code by version: it goes on only while none of it changes.

    The kind of device is no part of it: pictures of another one differ in their last bits only.
    """
    inputs = {f"source {s.name}": s.sha256 for s in sources}
    inputs |= {name: _digest(context[name]) for name in ("base", *PARTS, "embedder", "prompts") if name in context}
    drawn = ("steps", "guidance", "negative", "resolution", "scheduler", "clip_skip", "emphasis")
    return inputs | {
        "search space": _digest(space.described()),
        "rendering": _digest([context[name] for name in drawn if name in context]),
        "scorer": f"version {context['scorer']}",
        "libraries": _versions(context["libraries"]),
    }


def _versions(libraries: object) -> str:
    assert isinstance(libraries, list)
    return ", ".join(f"{name} {number}" for name, number in zip(("torch", "diffusers"), libraries, strict=True))


def folder_fingerprint(folder: Path) -> str:
    """SHA-256 over names, sizes and contents of a folder's files, or of one file; of large ones samples are read, see ``digest_file``."""
    digest = hashlib.sha256()
    for path in [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest_file(digest, path)
    return digest.hexdigest()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def check_same_inputs(saved: Mapping[str, str], found: Mapping[str, str], where: str | Path) -> None:
    """Raise unless everything that a study rests on is what it began with; what was not written down then is not compared.

    Raises:
        StudyError: naming everything that changed, before and now.
    """
    if changed := changes(saved, found):
        problem = f"what the study here rests on has changed since it began ({'; '.join(changed)})"
        raise StudyError(problem, where=where, remedy="put it back, or start a new study with what is still valid: --fork NAME")


def changes(saved: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What is written down and not as it was, each with its digest or version before and now."""
    return [f"{name}: {_short(saved[name])} → {_short(now)}" for name, now in found.items() if saved.get(name, now) != now]


def _short(value: str) -> str:
    """As many digits of a digest as people compare; versions in full."""
    return value[:8] if re.fullmatch(r"[0-9a-f]{64}", value) else value


def check_same_run(saved: Config, asked: Config, where: Path) -> None:
    """Raise unless ``asked`` may continue the study that ``saved`` began: budget, time and export may differ, nothing else.

    Raises:
        StudyError: listing every option that differs, with both values.
    """
    before, now = _binding(saved), _binding(asked)
    changed = [f"{name}: {before[name]} → {now[name]}" for name in now if before.get(name) != now[name]]
    if changed:
        raise StudyError(
            f"the study here was made with other settings ({'; '.join(changed)})",
            where=where,
            remedy="repeat the command that began it, choose another --out, or start a new study with what is still valid: --fork NAME",
        )


def _binding(config: Config) -> dict[str, object]:
    """What may not change while a study goes on."""
    base = {"base": FakeSpec.of(config.base).identity} if is_fake(config.base) else {}
    return config.model_dump(mode="json", exclude=_FREE) | base
