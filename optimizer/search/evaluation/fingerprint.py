"""Fingerprints: the inputs that an evaluation depends on besides its recipe, and the checks that a study may be resumed with them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import torch

from objectives import AnyObjective, MetricObjective, embedder_names
from optimizer.adapters.files.base_location import locate_base
from optimizer.adapters.files.digest import digest_file
from optimizer.errors import StudyError
from optimizer.rendering import PromptSet, RenderSettings
from optimizer.rendering.fake_spec import FakeSpec, is_fake
from optimizer.search.config import OPTIONS, Config, option_of
from optimizer.search.config.values import option_key
from optimizer.search.evaluation.aims import PRIORITIES, TARGETS, Aims
from optimizer.search.proposals.space import SearchSpace
from optimizer.search.sources.accelerators import Accelerator
from optimizer.search.sources.source import Source
from studies.records import told_numbers

# Increase whenever the values of the objectives would be combined into another score, or the standard table changes.
SCORER = 5
# Objectives, with their versions, of evaluations whose keys do not list the objectives.
_STANDARD: Mapping[str, int] = MappingProxyType({"preservation": 3, "separation": 1, "artifacts": 2, "familiarity": 2})
_SPACE = "search space"
NO_PARTS: Mapping[str, str] = MappingProxyType({})
# Increase whenever prompts with weights, or longer than CLIP's context, are rendered differently.
EMPHASIS = 1
ACCELERATORS, EVAL_BASE = "accelerators", "eval_base"
# Inputs that only some studies have, with what a study has that records none of them. They are compared even then, because they change
# every score.
_IF_ANY: Mapping[str, str] = MappingProxyType({PRIORITIES: "equal", TARGETS: "none", ACCELERATORS: "none", EVAL_BASE: "none"})
_AIMS = (PRIORITIES, TARGETS)


def evaluation_context(
    drawn: Mapping[str, object], embedder: str, *, objectives: Sequence[AnyObjective], based: bool = True, aims: Aims | None = None
) -> dict[str, object]:
    """Returns the JSON-serializable parts of an evaluation's key.

    Args:
        drawn: inputs that the pictures of the search's prompts depend on, from ``drawing_context``.
        embedder: name of the embedder.
        objectives: objectives of the run. Those that only add columns, and metrics of the user, are parts of their own, so that keys
            without them are those of earlier versions.
        based: whether effects are measured against the base's pictures, instead of those of the other sources.
        aims: priorities and targets of the sources; None for none.
    """
    other: dict[str, object] = {} if based else {"zero": "the other sources"}
    metrics = [o for o in objectives if isinstance(o, MetricObjective)]
    other |= {"metrics": {o.name: o.described() for o in metrics}} if metrics else {}
    columns = {o.name: o.version for o in objectives if o.column}
    other |= {"columns": columns} if columns else {}
    embedded = [folder_fingerprint(Path(name)) if Path(name).is_dir() else name for name in embedder_names(embedder)]
    return {
        **drawn,
        "scorer": _scorer([o for o in objectives if o not in metrics and not o.column]),
        "embedder": embedded[0] if len(embedded) == 1 else embedded,
        **other,
        **(aims.described() if aims else {}),
    }


def drawing_context(
    base: str,
    prompts: PromptSet,
    settings: RenderSettings,
    precision: str,
    parts: Mapping[str, str] = NO_PARTS,
    *,
    special: bool = False,
    accelerators: Sequence[Accelerator] = (),
    eval_base: str = "",
) -> dict[str, object]:
    """Returns the JSON-serializable inputs that pictures of some prompts depend on besides the recipe.

    Args:
        base: location of the base model that the sources were trained on.
        prompts: prompts of the pictures.
        settings: rendering settings.
        precision: numeric precision of the renderer.
        parts: locations of the models that replace parts of the base, by part name.
        special: whether a prompt has weights or is longer than CLIP's context. Keys of plain prompts are those of earlier versions,
            because their rendering has not changed.
        accelerators: LoRAs that everything is drawn with.
        eval_base: location of the model that draws, if it is another one.
    """
    other: dict[str, object] = {part: folder_fingerprint(Path(place)) for part, place in parts.items() if place}
    other |= {"emphasis": EMPHASIS} if special else {}
    other |= {EVAL_BASE: _base_fingerprint(eval_base)} if eval_base else {}
    other |= {ACCELERATORS: [[one.adapter.sha256, one.weight] for one in accelerators]} if accelerators else {}
    return {
        "base": _base_fingerprint(base),
        "prompts": [[p.text, p.seed, -1 if p.source is None else p.source] for p in prompts.prompts],
        "steps": settings.steps,
        "guidance": settings.guidance,
        "negative": settings.negative,
        "resolution": settings.resolution or 0,
        "scheduler": settings.scheduler,
        "clip_skip": settings.clip_skip or 0,
        "precision": precision,
        "libraries": [torch.__version__.split("+")[0], version("diffusers")],
        **other,
    }


def _base_fingerprint(base: str) -> str:
    return FakeSpec.of(base).identity if is_fake(base) else folder_fingerprint(locate_base(base))


def study_inputs(context: Mapping[str, object], sources: Sequence[Source], space: SearchSpace) -> dict[str, str]:
    """Returns the inputs of a study: digests of files, versions of code. A study can be resumed only while they are unchanged.

    The device type is not included, because pictures of different devices differ only in their last bits.
    """
    parts = [name for name, declared in OPTIONS.items() if option_of(declared).part]
    inputs = {f"source {s.name}": s.sha256 for s in sources}
    inputs |= {name: _digest(context[name]) for name in ("base", EVAL_BASE, ACCELERATORS, *parts, "embedder", "prompts") if name in context}
    drawn = ("steps", "guidance", "negative", "resolution", "scheduler", "clip_skip", "emphasis")
    return inputs | {
        _SPACE: _digest(space.described()),
        "rendering": _digest([context[name] for name in drawn if name in context]),
        "scorer": _scorer_text(context["scorer"]),
        "libraries": _versions(context["libraries"]),
        **_measured_besides(context),
        **{name: told_numbers(numbers) for name in _AIMS if isinstance(numbers := context.get(name), dict)},
    }


def continued(space: SearchSpace, begun: Mapping[str, str]) -> SearchSpace:
    """Returns the space in which a study goes on: that of the version that started it.

    Args:
        space: space of this version.
        begun: inputs that the study started with; empty for a new study.
    """
    earlier = space.earlier()
    return earlier if begun.get(_SPACE) == _digest(earlier.described()) else space


def _measured_besides(context: Mapping[str, object]) -> dict[str, str]:
    """Returns the versions of what is measured besides the score: the columns, and each metric of the user."""
    columns, metrics = context.get("columns", {}), context.get("metrics", {})
    assert isinstance(columns, dict)
    assert isinstance(metrics, dict)
    found = {"columns": ", ".join(f"{name} version {number}" for name, number in columns.items())} if columns else {}
    return found | {f"metric {name}": str(described["version"]) for name, described in metrics.items()}


def _scorer(objectives: Sequence[AnyObjective]) -> int | dict[str, object]:
    """Returns the scorer's part of an evaluation's key: its version, and the objectives unless they are the standard ones."""
    found = {objective.name: objective.version for objective in objectives}
    return SCORER if found == _STANDARD else {"version": SCORER, "objectives": found}


def _scorer_text(scorer: object) -> str:
    """Returns the scorer's part of the key as text, which names the objectives that are not the standard ones."""
    if not isinstance(scorer, dict):
        return f"version {scorer}"
    found = scorer["objectives"]
    parts = [f"version {scorer['version']}"]
    parts += [f"with the objective {name} version {number}" for name, number in found.items() if _STANDARD.get(name) != number]
    return ", ".join([*parts, *(f"without the objective {name}" for name in _STANDARD if name not in found)])


def _versions(libraries: object) -> str:
    assert isinstance(libraries, list)
    return ", ".join(f"{name} {number}" for name, number in zip(("torch", "diffusers"), libraries, strict=True))


def folder_fingerprint(folder: Path) -> str:
    """Returns SHA-256 over names, sizes and contents of a folder's files, or of one file; large files are sampled by ``digest_file``."""
    digest = hashlib.sha256()
    for path in [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest_file(digest, path)
    return digest.hexdigest()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def check_same_inputs(saved: Mapping[str, str], found: Mapping[str, str], where: str | Path) -> None:
    """Checks that the inputs of a study are unchanged; inputs that were not recorded at its start are not compared.

    Raises:
        StudyError: an input changed; the message lists all changes with their previous and present values.
    """
    if changed := changes(saved, found):
        problem = f"what the study here rests on has changed since it began ({'; '.join(changed)})"
        if any(line.startswith("prompts: ") for line in changed):
            problem += "; prompts follow from --prompts, the triggers of the sources, and the general words of this version"
        raise StudyError(problem, where=where, remedy="put it back, or start a new study with what is still valid: --fork NAME")


def changes(saved: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Returns the recorded inputs that differ, each with its digest or version before and now; nothing if none are recorded."""
    before, now = ({**_IF_ANY, **inputs} if saved else inputs for inputs in (saved, found))
    return [f"{name}: {_short(before[name])} → {_short(value)}" for name, value in now.items() if before.get(name, value) != value]


def _short(value: str) -> str:
    """Returns the first 8 digits of a SHA-256 digest; other values, such as versions, in full."""
    return value[:8] if re.fullmatch(r"[0-9a-f]{64}", value) else value


def check_same_run(saved: Config, asked: Config, where: Path) -> None:
    """Checks that ``asked`` may continue the study that ``saved`` started: only budget, time and export options may differ.

    Raises:
        StudyError: an option differs; the message lists all of them with both values.
    """
    before, now = _binding(saved), _binding(asked)
    changed = [f"{option_key(name)}: {before[name]} → {now[name]}" for name in now if before.get(name) != now[name]]
    if changed:
        raise StudyError(
            f"the study here was made with other settings ({'; '.join(changed)})",
            where=where,
            remedy="repeat the command that began it, choose another --out, or start a new study with what is still valid: --fork NAME",
        )


def _binding(config: Config) -> dict[str, object]:
    """Returns the options that must not change while a study continues."""
    bases = {"base": config.inputs.base, "eval_base": config.inputs.eval_base}
    fake = {name: FakeSpec.of(base).identity for name, base in bases.items() if is_fake(base)}
    return config.options(lambda option: option.identity, mode="json") | fake
