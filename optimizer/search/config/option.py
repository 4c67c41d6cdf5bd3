"""Declaring an option: what there is to know about a setting besides its type, its default and its description."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class Panel(StrEnum):
    """Panels of the help text, in the order in which they are shown."""

    SOURCES = "Sources"
    BASE_MODEL = "Base model"
    SEARCH = "Search"
    PICTURES = "Pictures and scores"
    OUTPUT = "Output"
    MEMORY = "Memory and speed"
    WORKERS = "Many workers"


@dataclass(frozen=True)
class Option:
    """One option of the main command. Stands in the annotation of the setting that it declares.

    Attributes:
        number: position in ``study.yaml`` and in the command that repeats a run. The order is fixed, because a finished study is recognised
            by its command.
        panel: panel of the help text.
        value: placeholder of the value in the help text; empty for flags and choices.
        identity: whether the setting belongs to the study's identity, so that it must not change when the study is resumed.
        per_machine: whether every machine sets it for itself, so that it is not sent to workers on other machines.
        part: whether it names a replacement for a part of the base model. It is then bound by content, and each machine may have it
            elsewhere.
        not_for_models: reason why full models cannot be given it; empty if they can.
    """

    number: int
    panel: Panel
    value: str = ""
    _: KW_ONLY
    identity: bool = True
    per_machine: bool = False
    part: bool = False
    not_for_models: str = ""


class Settings(BaseModel):
    """A group of settings that are used together. Every field carries an ``Option``."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def option_of(field: FieldInfo) -> Option:
    """Returns the declaration in a field's annotation.

    Raises:
        TypeError: the field has none.
    """
    for item in field.metadata:
        if isinstance(item, Option):
            return item
    raise TypeError(f"a setting of type {field.annotation} declares no Option")
