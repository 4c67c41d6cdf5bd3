"""Setup: the settings beyond the recipe that are needed to reproduce the bytes of a merged file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from optimizer.adapters import Dialect

SETUP_KEY = "multilora_setup"
"""Metadata key that holds the setup as JSON."""


class Setup(BaseModel):
    """Dialect of a merged file, and names, roles and triggers of its sources; strings from a file are checked for their type only.

    Attributes:
        dialect: dialect of the file's keys.
        names, roles, triggers: one entry per source, or empty.
        files: paths of the sources, relative to the folder of the recipe; in recipe files only, never in a header.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dialect: Dialect = "kohya"
    names: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @classmethod
    def of_header(cls, metadata: Mapping[str, str]) -> Setup:
        """Returns the setup in a file's metadata without ``files``, since paths in a header are untrusted; defaults if it is invalid."""
        try:
            return cls.model_validate_json(metadata.get(SETUP_KEY, "{}")).model_copy(update={"files": ()})
        except ValidationError:
            return cls()

    def to_header(self) -> str:
        """Returns the setup as JSON for a header, without ``files``, which would publish local paths."""
        return json.dumps(self.data(), sort_keys=True, ensure_ascii=False)

    def data(self, files: tuple[str, ...] = ()) -> dict[str, Any]:
        """Returns the setup as JSON-ready data, with the given ``files``."""
        said = self.model_dump(mode="json", exclude={"files"})
        return said | ({"files": list(files)} if files else {})
