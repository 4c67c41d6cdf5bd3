"""Setup: what a merge needs beyond its recipe to be written to the same bytes again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from optimizer.adapters import Dialect

SETUP_KEY = "multilora_setup"
"""Header key that holds the setup as JSON."""


class Setup(BaseModel):
    """Whose names a merged file has, and what its sources are called in it; of strings from a file, nothing is known but their type.

    Attributes:
        dialect: of the tensors' names.
        names, roles, triggers: one a source, or none at all.
        files: where the sources were, seen from the folder of the recipe; in recipe files only, never in a header.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dialect: Dialect = "kohya"
    names: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @classmethod
    def of_header(cls, metadata: Mapping[str, str]) -> Setup:
        """What a file's header says, but files, which a stranger must not choose; the defaults where it says nothing that can be read."""
        try:
            return cls.model_validate_json(metadata.get(SETUP_KEY, "{}")).model_copy(update={"files": ()})
        except ValidationError:
            return cls()

    def to_header(self) -> str:
        """As JSON for a header, without files: where they lie is nobody else's business."""
        return json.dumps(self.data(), sort_keys=True, ensure_ascii=False)

    def data(self, files: tuple[str, ...] = ()) -> dict[str, Any]:
        """As JSON-ready data, with these files."""
        said = self.model_dump(mode="json", exclude={"files"})
        return said | ({"files": list(files)} if files else {})
