"""Transfer of a run's configuration and files to workers on other machines, through the database and the store, by content hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna

from optimizer.errors import StudyError
from optimizer.search.config import DEMO, Config, check_named
from optimizer.search.config.accelerators import parse_accelerators
from optimizer.search.sources.source import Source
from studies.atomic import write_bytes
from studies.store import Store

_CONFIG, _FILES, _VERSION = "config", "files", "version"
_FOLDER = "sources"


def send(config: Config, sources: Sequence[Source], study: optuna.Study, store: Store) -> None:
    """Writes the source files, the accelerators and the prompt vocabulary to the store, and the configuration to the study; idempotent."""
    files = {spec: source.file for spec, source in zip(config.inputs.sources, sources, strict=True) if not spec.startswith(DEMO)}
    files |= {text.file: Path(text.file) for text in parse_accelerators(config.inputs.with_) if not text.demo}
    if config.protocol.prompts:
        files[config.protocol.prompts] = Path(config.protocol.prompts)
    named = {spec: _send_file(path, store) for spec, path in files.items()}
    study.set_user_attr(_FILES, named)
    study.set_user_attr(_VERSION, _version())
    resolved = config.replaced(triggers=tuple(source.subject.trigger for source in sources))  # model cards do not travel
    study.set_user_attr(_CONFIG, resolved.options(lambda option: not option.per_machine, mode="json"))


def fetch_config(config: Config, study: optuna.Study, store: Store) -> Config:
    """Returns the study's configuration for this machine, with files from the store in place of those of the machine that started it.

    Args:
        config: options that differ on this machine: device, batch, and the locations of base and autoencoder; and the study's metrics,
            which the user of this machine has to name.
        study: Optuna study.
        store: store that contains the sources.

    Raises:
        UsageError: the metrics of the study are not named.
        StudyError: the study was not started for other machines, has another version, or a file is missing from the store.
    """
    attrs = study.user_attrs
    if _CONFIG not in attrs:
        raise StudyError("the study has not been begun yet", where="--study", remedy="start optimize --storage … first, or wait for it")
    if attrs.get(_VERSION) != _version():
        problem = f"the study was begun with {attrs.get(_VERSION)}, here is {_version()}"
        raise StudyError(problem, where="--study", remedy="install the same versions on all machines")
    saved: dict[str, Any] = dict(attrs[_CONFIG])
    check_named(saved.get("metric", ()), config.protocol.metric)
    own, inputs = config.options(lambda option: option.per_machine), config.inputs
    places = {spec: str(_fetch_file(name, store)) for spec, name in attrs[_FILES].items()}
    saved["sources"] = [places.get(spec, spec) for spec in saved["sources"]]
    saved["with_"] = [str(replace(text, file=places.get(text.file, text.file))) for text in parse_accelerators(saved.get("with_", ()))]
    saved["prompts"] = places.get(saved["prompts"], saved["prompts"])
    here = {name: place for name, place in {"base": inputs.base, "eval_base": inputs.eval_base, **config.loading.parts()}.items() if place}
    return Config.of(**saved | here | own)


def _send_file(path: Path, store: Store) -> str:
    """Stores a file under its content hash and file name, unless it exists; returns the store name."""
    data = path.read_bytes()
    name = f"{_FOLDER}/{hashlib.sha256(data).hexdigest()}/{path.name}"
    if store.read(name) != data:
        store.write(name, data)
    return name


def _fetch_file(name: str, store: Store) -> Path:
    """Returns the local path of a file in the store, downloaded unless it is already in the local cache."""
    digest = name.split("/")[1]
    path = cache_folder() / digest / Path(name).name
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
        return path
    data = store.read(name)
    if data is None or hashlib.sha256(data).hexdigest() != digest:
        problem = "is missing from the store" if data is None else "is damaged in the store"
        raise StudyError(
            f"{Path(name).name} {problem}", where=name, remedy="run the command that began the study again: it sends its files"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
    return path


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns the local cache folder for files from a store: under ``XDG_CACHE_HOME``, or ``~/.cache``."""
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multilora" / _FOLDER


def _version() -> str:
    return ", ".join(f"{name} {version(name).split('+')[0]}" for name in ("multilora-optimizer", "torch", "diffusers"))
