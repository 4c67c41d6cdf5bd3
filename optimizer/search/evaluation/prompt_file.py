"""Prompt files: the words, the complete prompts, the triggers and the roles that a user gives with ``--prompts``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from optimizer.errors import UsageError
from optimizer.rendering import Role, Vocabulary
from optimizer.text import one_line

_Words = Annotated[tuple[str, ...], Field(min_length=1)]
_Prompts = Annotated[tuple[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)], ...], Field(min_length=1)]
_STRICT = ConfigDict(extra="forbid", frozen=True)
_PAGE = "docs/prompts.md shows a complete file"


class SourcePrompts(BaseModel):
    """What a prompt file says about one source; None for what it does not say.

    Attributes:
        prompts: complete prompts that ask for the source alone.
        trigger: trigger words; empty for a source that needs none.
        role: content of the source.
    """

    model_config = _STRICT

    prompts: _Prompts | None = None
    trigger: Annotated[str, StringConstraints(strip_whitespace=True)] | None = None
    role: Role | None = None


class PromptFile(BaseModel):
    """Content of a prompt file.

    Attributes:
        subjects, settings: words that prompts are composed of; both or neither are given.
        wide_settings: places for two or more subjects.
        sources: name of a source → what is said about it.
        joint: complete prompts that ask for all sources.
    """

    model_config = _STRICT

    subjects: _Words | None = None
    settings: _Words | None = None
    wide_settings: tuple[str, ...] = ()
    sources: Annotated[Mapping[str, SourcePrompts], Field(min_length=1)] | None = None
    joint: _Prompts | None = None

    @model_validator(mode="after")
    def _composable(self) -> Self:
        if (self.subjects is None) != (self.settings is None):
            raise ValueError("subjects and settings go together: prompts are composed of one of each")
        if self.wide_settings and self.settings is None:
            raise ValueError("wide_settings go with subjects and settings")
        if not self.model_fields_set:
            raise ValueError("the file says nothing")
        return self

    @property
    def words(self) -> Vocabulary | None:
        """Words that the file holds; None if it holds none."""
        if self.subjects is None or self.settings is None:
            return None
        return Vocabulary(self.subjects, self.settings, self.wide_settings)

    def of(self, name: str) -> SourcePrompts:
        """Returns what the file says about the source of this name."""
        return (self.sources or {}).get(name, SourcePrompts())


def read_prompt_file(path: Path) -> PromptFile:
    """Reads a prompt file.

    Raises:
        UsageError: the file cannot be read, or a key or a value is none that it may hold; the message names the file and the place.
    """
    try:
        return PromptFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise _invalid(error, path) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"the prompts cannot be read: {one_line(error)}", where=path, remedy=f"give a YAML file; {_PAGE}") from error


def read_words(path: Path) -> Vocabulary:
    """Returns the words in a YAML file.

    Raises:
        UsageError: the file cannot be read, or holds no words.
    """
    words = read_prompt_file(path).words
    if words is None:
        raise UsageError("there are no words in it", where=path, remedy="add the lists subjects and settings")
    return words


def _invalid(error: ValidationError, path: Path) -> UsageError:
    """Returns the first error of validation, with its place in the file."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    prefix = f"{one_line(place)}: " if place else ""
    if first["type"] == "extra_forbidden":
        known = PromptFile if len(first["loc"]) == 1 else SourcePrompts
        return UsageError(f"{prefix}there is no such key", where=path, remedy=f"use {', '.join(known.model_fields)}; {_PAGE}")
    if first["type"] == "too_short":
        return UsageError(f"{prefix}the list is empty", where=path, remedy="fill it, or leave it out")
    if first["type"] == "model_type":
        return UsageError(f"{prefix}there should be keys with values", where=path, remedy=_PAGE)
    problem = one_line(first["msg"]).removeprefix("Value error, ")
    return UsageError(f"{prefix}{problem[:1].lower()}{problem[1:]}", where=path, remedy=_PAGE)
