"""Loads the adapters named by command-line arguments: files, demo sources, and the compatible files of a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from optimizer.adapters import Adapter, BaseWeights, load_adapter
from optimizer.errors import AdapterError, BaseModelError, UsageError
from optimizer.inspection.similarity import misfit
from studies.demo.world import PREFIX, UnknownDemoSource, demo_family, demo_source

UNREADABLE = "cannot be read"
_SUFFIX = ".safetensors"
_GREATEST_SCALE = 1e30


@dataclass(frozen=True)
class Reading:
    """Options for reading files.

    Attributes:
        allow_unknown: whether to skip tensors that no dialect recognises.
        base: base model weights, for adapter kinds that depend on them.
    """

    allow_unknown: bool = False
    base: BaseWeights | None = None

    @classmethod
    def of(cls, allow_unknown: bool, base: Path | None) -> Reading:
        """Returns the options with the base model of a folder, or without one for None.

        Raises:
            BaseModelError: the folder holds no base model weights.
        """
        return cls(allow_unknown, None if base is None else BaseWeights(base))


@dataclass(frozen=True)
class Found:
    """A file that was read.

    Attributes:
        adapter: adapter in the file.
        path: path of the file.
        trigger: trigger word of a demo source; None for any other file, whose metadata may state one.
    """

    adapter: Adapter
    path: Path
    trigger: str | None = None

    @property
    def family(self) -> str:
        """Family of the base model: ``sd1``, ``sdxl`` … or ``unknown``; ``demo`` for a demo source."""
        return demo_family(self.path) or self.adapter.base


@dataclass(frozen=True)
class LeftOut:
    """A skipped file of a folder: path, a short reason for grouping, and the full reason."""

    path: Path
    reason: str
    detail: str


@dataclass(frozen=True)
class GatheredFiles:
    """Files that were read, with unique names and in the given order, and skipped files of folders."""

    found: tuple[Found, ...]
    left_out: tuple[LeftOut, ...]


def gather(specs: Sequence[str], reading: Reading) -> GatheredFiles:
    """Reads the files that are given to ``inspect``.

    Args:
        specs: files, ``demo:NAME``, and folders; of a folder, the files compatible with the first file read are used.
        reading: options for reading files.

    Raises:
        AdapterError: a named file cannot be used.
        UsageError: no file is given or can be read.
    """
    if not specs:
        raise UsageError("no file given", remedy="name LoRA files, directories or demo:NAME")
    found: list[Found] = []
    left_out: list[LeftOut] = []
    for spec in specs:
        if spec.startswith(PREFIX) or not Path(spec).is_dir():
            found.append(load(spec, reading))
            continue
        for file in _without(adapter_files(Path(spec)), found):
            outcome = read(file, reading)
            if isinstance(outcome, Found) and found:
                outcome = fitting(outcome, found[0].adapter) or outcome
            if isinstance(outcome, Found):
                found.append(outcome)
            else:
                left_out.append(outcome)
    if not found:
        raise UsageError(f"nothing to inspect, {summary(left_out)}", where=specs[0], remedy=f"first {left_out[0].detail}")
    return GatheredFiles(_uniquely_named(found), tuple(left_out))


def load(spec: str, reading: Reading) -> Found:
    """Reads a file or a demo source.

    Raises:
        AdapterError: the file cannot be used.
        UsageError: the demo source does not exist.
    """
    if not spec.startswith(PREFIX):
        return _measurable(Found(_adapter(Path(spec), reading), Path(spec)))
    try:
        source = demo_source(spec)
    except UnknownDemoSource as error:
        problem, _, remedy = str(error).partition(" — ")
        raise UsageError(problem, remedy=remedy) from error
    return Found(load_adapter(source.path), source.path, source.trigger)


def read(path: Path, reading: Reading) -> Found | LeftOut:
    """Reads a file of a folder; returns it as skipped if it cannot be read."""
    try:
        return _measurable(Found(_adapter(path, reading), path))
    except (AdapterError, BaseModelError) as error:
        return LeftOut(path, UNREADABLE, str(error))


def _adapter(path: Path, reading: Reading) -> Adapter:
    return load_adapter(path, allow_unknown=reading.allow_unknown, base=reading.base)


def fitting(found: Found, reference: Adapter) -> LeftOut | None:
    """Returns the file as skipped if it is incompatible with the reference, else None."""
    reason = misfit(reference, found.adapter)
    return LeftOut(found.path, reason, f"{found.path}: {reason}") if reason else None


def adapter_files(folder: Path) -> list[Path]:
    """Returns the safetensors files directly in a folder, sorted by name.

    Raises:
        UsageError: the folder does not exist or holds no safetensors file.
    """
    if not folder.exists():
        raise UsageError("there is no such directory", where=folder, remedy="check the path")
    if not folder.is_dir():
        raise UsageError("is a file, not a directory", where=folder, remedy="look at one file with optimize inspect FILE")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == _SUFFIX and path.is_file())
    if not files:
        raise UsageError(f"holds no {_SUFFIX} file", where=folder, remedy="name the directory that your LoRAs lie in")
    return files


def summary(left_out: Sequence[LeftOut]) -> str:
    """Returns a summary such as ``3 left out: 2 for sdxl, 1 cannot be read``; empty if no file was skipped."""
    reasons = ", ".join(f"{number} {reason}" for reason, number in Counter(item.reason for item in left_out).most_common())
    return f"{len(left_out)} left out: {reasons}" if left_out else ""


def _measurable(found: Found) -> Found:
    """Returns the file unchanged.

    Raises:
        AdapterError: an alpha is so large that squares of ΔW would overflow.
    """
    for module, factors in found.adapter.modules.items():
        if abs(factors.scale) > _GREATEST_SCALE:
            problem = f"alpha is {factors.alpha:g}, which no training has used"
            raise AdapterError(problem, file=found.path, key=module, remedy="correct the file's header, or get the file again")
    return found


def _without(files: Sequence[Path], found: Sequence[Found]) -> Iterator[Path]:
    """Yields the files that have not been read already."""
    known = {item.path.resolve() for item in found}
    yield from (file for file in files if file.resolve() not in known)


def _uniquely_named(found: Sequence[Found]) -> tuple[Found, ...]:
    """Returns the files with duplicate adapter names numbered: ``hero``, ``hero-2``."""
    unique: dict[str, Found] = {}
    for item in found:
        name = item.adapter.name
        name = next(n for n in (name if i == 1 else f"{name}-{i}" for i in count(1)) if n not in unique)
        unique[name] = replace(item, adapter=replace(item.adapter, name=name))
    return tuple(unique.values())
