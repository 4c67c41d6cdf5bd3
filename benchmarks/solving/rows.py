"""Rows: what one method drew for one group and seed, on disk, so that an interrupted run continues and new probes read old pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.solving.groups import Group
from optimizer.merging import Router
from optimizer.merging.router_files import read_router
from studies.atomic import replacing, write_bytes, write_text


@dataclass(frozen=True)
class Row:
    """One method on one group with one seed.

    Attributes:
        group: names of the sources.
        method: name of the method.
        seed: seed of the prompts and of the method.
        each: number of prompts of each kind that the pictures show.
        seconds: time of the processor that the merge took, without drawing its pictures.
        memory: peak of resident memory above that before, in bytes.
        told: further findings: weights, loss, peak of drawing.
    """

    group: Group
    method: str
    seed: int
    each: int
    seconds: float = 0.0
    memory: int = 0
    told: dict[str, Any] = field(default_factory=dict)


class Rows:
    """Folder of rows: ``GROUP/SEED/METHOD.json`` with the pictures, and the router where there is one, beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, group: Group, method: str, seed: int) -> bool:
        """Returns whether the row was recorded."""
        return self._path(group, method, seed, "json").exists()

    def record(self, row: Row, pictures: Tensor, router: bytes | None = None) -> None:
        """Writes a row; its JSON comes last, so that it stands for a complete row.

        Args:
            row: the row.
            pictures: what was drawn, uint8, (n, 3, 64, 64).
            router: bytes of the router's file.
        """
        place = self._path(row.group, row.method, row.seed, "json")
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._path(row.group, row.method, row.seed, "pictures.safetensors")) as temporary:
            save_file({"images": pictures.contiguous()}, temporary)
        if router is not None:
            write_bytes(self._path(row.group, row.method, row.seed, "router.safetensors"), router)
        write_text(place, json.dumps(asdict(row), indent=1))

    def pictures(self, row: Row) -> Tensor:
        """Returns what was drawn, uint8, (n, 3, 64, 64)."""
        return load_file(self._path(row.group, row.method, row.seed, "pictures.safetensors"))["images"]

    def router(self, group: Group, method: str, seed: int) -> Router:
        """Returns the router of a row that was solved.

        Raises:
            FileNotFoundError: no such row was recorded, or it has no router.
        """
        data = self._path(group, method, seed, "router.safetensors").read_bytes()
        return read_router(data, hashlib.sha256(data).hexdigest())

    def __iter__(self) -> Iterator[Row]:
        for path in sorted(self.folder.glob("*/seed*/*.json")):
            stored = json.loads(path.read_text())
            yield Row(**{**stored, "group": tuple(stored["group"])})

    def _path(self, group: Group, method: str, seed: int, suffix: str) -> Path:
        return self.folder / "+".join(group) / f"seed{seed}" / f"{method.replace(':', '')}.{suffix}"
