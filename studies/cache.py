"""EvaluationCache: stores every finished evaluation under a key made of all inputs that determine its result.

An evaluation is written before it is reported to the optimizer. A run that is killed and restarted finds it here and does not render
it again.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from studies.records import Evaluation
from studies.store import Store

FORMAT = "evaluation/1"
FOLDER = "evaluations"
_KEY = re.compile(r"[0-9a-f]{64}")


class BrokenEvaluationWarning(UserWarning):
    """A cache file is incomplete or not valid; it was moved aside and counts as missing."""


def evaluation_key(**parts: object) -> str:
    """Returns the key of an evaluation: SHA-256 over the canonical JSON of its parts, 64 hexadecimal digits.

    Pass everything that determines the result: recipe, hashes of the sources and of the base, prompts, seeds, steps, size,
    scheduler, embedder, and the version of the score. The order of the parts and of dictionary keys does not matter.

    Args:
        parts: JSON-serializable values: None, bool, int, finite float, str, lists, tuples, dictionaries with string keys.

    Raises:
        ValueError: no part was given, or a part is not JSON-serializable; the message names the part.

    Example:
        >>> evaluation_key(recipe={"method": "ties"}, seed=1) == evaluation_key(seed=1, recipe={"method": "ties"})
        True
    """
    if not parts:
        raise ValueError("an evaluation needs at least one part in its key")
    for name, value in parts.items():
        _check(value, name)
    return _digest(parts)


@dataclass(frozen=True)
class EvaluationCache:
    """Evaluations in a store, one JSON file per key; safe to share between processes and machines.

    Attributes:
        store: store of the files. ``evaluations/KEY.json`` contains the format, the key, a checksum and the evaluation.
    """

    store: Store

    def get(self, key: str) -> Evaluation | None:
        """Returns the evaluation stored under ``key``, or None.

        A file that is incomplete, altered or not an evaluation of this key is moved aside as ``*.broken``, named in a
        ``BrokenEvaluationWarning``, and counts as missing.

        Raises:
            ValueError: ``key`` is not 64 hexadecimal digits.
            OSError: the store cannot be read.
        """
        name = _name(key)
        data = self.store.read(name)
        if data is None:
            return None
        try:
            return _decode(data, key)
        except ValueError as error:
            moved = self._move_aside(name, data)
            notice = f"{name}: {error}; it counts as missing and is kept as {moved}"
            warnings.warn(notice, BrokenEvaluationWarning, stacklevel=2)
            return None

    def put(self, key: str, evaluation: Evaluation) -> None:
        """Stores the evaluation durably, replacing an existing one; it survives a power failure after this method has returned.

        Raises:
            ValueError: ``key`` is not 64 hexadecimal digits, or the recipe is not JSON-serializable.
            OSError: the store cannot be written.
        """
        self.store.write(_name(key), _encode(evaluation, key))

    def add(self, key: str, evaluation: Evaluation) -> Evaluation:
        """Stores the evaluation durably if its key is new; returns the stored one. Raises the exceptions of ``put``."""
        name, data = _name(key), _encode(evaluation, key)
        while not self.store.create(name, data):
            if first := self.get(key):
                return first
        return evaluation

    def keys(self) -> Iterator[str]:
        """Returns the keys of all stored evaluations, sorted, without checking the files' contents, which ``get`` does."""
        stems = (name.removeprefix(f"{FOLDER}/").removesuffix(".json") for name in self.store.names(FOLDER) if name.endswith(".json"))
        return (stem for stem in stems if _KEY.fullmatch(stem))

    def _move_aside(self, name: str, data: bytes) -> str:
        number, stem = 1, name.removesuffix(".json")
        while self.store.read(moved := f"{stem}.{number}.broken") is not None:
            number += 1
        self.store.write(moved, data)
        self.store.remove(name)
        return moved


def _name(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not an evaluation key; make one with evaluation_key(...)")
    return f"{FOLDER}/{key}.json"


def _encode(evaluation: Evaluation, key: str) -> bytes:
    """Returns an evaluation as file content; raises ValueError if its recipe is not JSON-serializable."""
    _check(evaluation.recipe, "recipe")
    stored = json.loads(evaluation.model_dump_json())
    envelope = {"format": FORMAT, "key": key, "checksum": _digest(stored), "evaluation": stored}
    return f"{json.dumps(envelope, indent=1, allow_nan=False)}\n".encode()


def _decode(data: bytes, key: str) -> Evaluation:
    """Returns the evaluation in a file; raises ValueError with a reason that can follow the file's name."""
    try:
        envelope = json.loads(data)
    except ValueError:
        raise ValueError("the file is torn or not JSON") from None
    if not isinstance(envelope, dict) or envelope.get("format") != FORMAT:
        raise ValueError(f"the file is not of the format {FORMAT}")
    if envelope.get("key") != key:
        raise ValueError("the file belongs to another key")
    stored = envelope.get("evaluation")
    if envelope.get("checksum") != _digest(stored):
        raise ValueError("the file was altered, its checksum does not fit")
    try:
        return Evaluation.model_validate(stored)
    except ValidationError as error:
        raise ValueError(f"the file does not hold an evaluation ({error.error_count()} fields do not fit)") from None


def _check(value: Any, where: str) -> None:
    match value:
        case None | bool() | int() | str():
            return
        case float() if value - value == 0:
            return
        case list() | tuple():
            for index, item in enumerate(value):
                _check(item, f"{where}[{index}]")
        case dict():
            for name, item in value.items():
                if not isinstance(name, str):
                    raise ValueError(f"{where} has the key {name!r}, which is no string")
                _check(item, f"{where}[{name!r}]")
        case _:
            raise ValueError(f"{where} is {value!r}, which JSON cannot hold; pass text, finite numbers, lists and dictionaries")


def _digest(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()
