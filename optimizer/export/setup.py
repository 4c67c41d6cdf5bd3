"""Setup: the settings beyond the recipe that are needed to reproduce the bytes of a merged file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from optimizer.adapters import Dialect
from optimizer.export.drawn_with import BASE_ALONE, DrawnWith

SETUP_KEY = "multilora_setup"
"""Metadata key that holds the setup as JSON."""


class Setup(BaseModel):
    """Dialect of a merged file, and names, roles and triggers of its sources; strings from a file are checked for their type only.

    Attributes:
        dialect: dialect of the file's keys.
        names, roles, triggers: one entry per source, or empty.
        files: paths of the sources, relative to the folder of the recipe; in recipe files only, never in a header.
        drawn_with: what pictures were drawn with that the merge was judged by, or solved on; in recipe files only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dialect: Dialect = "kohya"
    names: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    drawn_with: DrawnWith = BASE_ALONE

    @classmethod
    def of_header(cls, metadata: Mapping[str, str]) -> Setup:
        """Returns the setup in a file's metadata without ``files``, since paths in a header are untrusted; defaults if it is invalid."""
        try:
            found = cls.model_validate_json(metadata.get(SETUP_KEY, "{}"))
            return found.model_copy(update={"files": (), "drawn_with": BASE_ALONE})
        except ValidationError:
            return cls()

    def to_header(self) -> str:
        """Returns the setup as JSON for a header, without ``files``, which would publish local paths, and without ``drawn_with``."""
        return json.dumps(self._named(), sort_keys=True, ensure_ascii=False)

    def data(self, files: tuple[str, ...] = ()) -> dict[str, Any]:
        """Returns the setup as JSON-ready data, with the given ``files``."""
        drawn_with = {"drawn_with": self.drawn_with.data()} if self.drawn_with else {}
        return self._named() | ({"files": list(files)} if files else {}) | drawn_with

    def _named(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"files", "drawn_with"})
