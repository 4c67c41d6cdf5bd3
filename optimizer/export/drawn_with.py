"""DrawnWith: what the pictures behind a merge were drawn with, where its base model alone does not tell."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class AcceleratorRecord(BaseModel):
    """A LoRA that everything was drawn with, and that no merge contains; strings may come from an untrusted file.

    Attributes:
        name: short name.
        file: file name, without folders.
        sha256: hex SHA-256 digest of the file.
        weight: factor on its change.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    file: str
    sha256: str
    weight: float = 1.0


class DrawnWith(BaseModel):
    """What pictures were drawn with that merges were judged by, or solved on. It is false if the base model alone drew with its defaults.

    Attributes:
        accelerators: LoRAs that were active beside every merge.
        base: name of the model that drew; empty if it was the base model.
        steps: number of denoising steps; None if not recorded.
        guidance: classifier-free guidance scale; None if not recorded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    accelerators: tuple[AcceleratorRecord, ...] = ()
    base: str = ""
    steps: int | None = None
    guidance: float | None = None

    def __bool__(self) -> bool:
        return bool(self.accelerators or self.base)

    def data(self) -> dict[str, Any]:
        """Returns the record as JSON-ready data, without what is empty or not recorded."""
        empty = {name for name in ("accelerators", "base") if not getattr(self, name)}
        return self.model_dump(mode="json", exclude_none=True, exclude=empty)

    @property
    def text(self) -> str:
        """The accelerators and their weights in words: ``lcm at 1 and turbo at 0.5``."""
        return " and ".join(f"{one.name} at {one.weight:g}" for one in self.accelerators)


BASE_ALONE = DrawnWith()
"""The base model alone, with its defaults or what is not recorded."""
