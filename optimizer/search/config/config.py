"""Config: the settings that determine a run, in groups; flat as options of the command line and in ``study.yaml``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from optimizer.errors import UsageError
from optimizer.search.config.inputs import Inputs
from optimizer.search.config.loading import Loading
from optimizer.search.config.option import Option, Settings, option_of
from optimizer.search.config.output import Output
from optimizer.search.config.places import Places, without_password
from optimizer.search.config.protocol import Protocol
from optimizer.search.config.rendering import Rendering
from optimizer.search.config.search import Search
from optimizer.search.config.values import option_key, option_name
from optimizer.text import one_line

_Group = TypeVar("_Group", bound=Settings)

GROUPS: tuple[type[Settings], ...] = (Inputs, Search, Protocol, Rendering, Loading, Places, Output)
"""Groups of settings, in the order in which the help text shows their options."""


class _Flat(Inputs, Search, Protocol, Rendering, Loading, Places, Output):
    """All settings side by side, as they are given and saved. Checks every option at once."""


OPTIONS: dict[str, FieldInfo] = dict(sorted(_Flat.model_fields.items(), key=lambda item: option_of(item[1]).number))
"""Declarations of all options by name, in the order of ``study.yaml``."""

_FIELDS = {option_key(name): name for name in OPTIONS}


@dataclass(frozen=True)
class Config:
    """Configuration of a run. Every setting of a group is a flag of ``optimize`` and a key of ``study.yaml``.

    Attributes:
        inputs: sources and base model.
        search: what is tried, and for how long.
        protocol: prompts and embedder.
        rendering: how pictures are drawn.
        loading: how the base model is loaded.
        places: where the study is, and how many processes work on it.
        output: what is exported and kept.
    """

    inputs: Inputs = field(default_factory=Inputs)
    search: Search = field(default_factory=Search)
    protocol: Protocol = field(default_factory=Protocol)
    rendering: Rendering = field(default_factory=Rendering)
    loading: Loading = field(default_factory=Loading)
    places: Places = field(default_factory=Places)
    output: Output = field(default_factory=Output)

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Returns a configuration made from options.

        Raises:
            UsageError: an option does not exist, or its value is out of range.
        """
        try:
            return cls._grouped(options)
        except ValidationError as error:
            raise refused(error) from error

    @classmethod
    def _grouped(cls, options: Any) -> Self:
        """Returns a configuration made from a mapping of options, by name or by key. Raises pydantic's ValidationError."""
        named = {_FIELDS.get(key, key): value for key, value in options.items()} if isinstance(options, Mapping) else options
        flat = _Flat.model_validate(named)

        return cls(
            inputs=_of(flat, Inputs),
            search=_of(flat, Search),
            protocol=_of(flat, Protocol),
            rendering=_of(flat, Rendering),
            loading=_of(flat, Loading),
            places=_of(flat, Places),
            output=_of(flat, Output),
        )

    @property
    def joint_prompts(self) -> int:
        """Number of prompts that ask for all sources; 0 if effects are measured against the other sources."""
        return 0 if self.inputs.interpolates else self.protocol.joint

    def options(
        self, which: Callable[[Option], bool] = lambda option: True, *, mode: Literal["python", "json"] = "python"
    ) -> dict[str, Any]:
        """Returns the value of every option, in the order of ``study.yaml``.

        Args:
            which: selects options by their declaration; default: all.
            mode: ``json`` for values that JSON and YAML hold.
        """
        groups: list[Settings] = [getattr(self, group.name) for group in fields(self)]
        values = {name: value for group in groups for name, value in group.model_dump(mode=mode).items()}
        return {name: values[name] for name, declared in OPTIONS.items() if which(option_of(declared))}

    def replaced(self, **options: Any) -> Self:
        """Returns a copy with other values of these options. Raises the exceptions of ``of``."""
        return self.of(**self.options() | options)

    def resolved(self) -> Self:
        """Returns a copy with absolute paths, so that the saved configuration is independent of the working directory."""
        return replace(
            self,
            inputs=self.inputs.resolved(),
            protocol=self.protocol.resolved(),
            loading=self.loading.resolved(),
            places=self.places.resolved(),
        )

    def to_yaml(self) -> str:
        """Returns the configuration as YAML, with every option's resolved value."""
        shown = self.options(mode="json") | {"storage": without_password(self.places.storage)}
        keyed = {option_key(name): value for name, value in shown.items()}
        return str(yaml.safe_dump(keyed, sort_keys=False, allow_unicode=True))

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Reads a configuration that ``to_yaml`` wrote.

        Raises:
            UsageError: the file is not readable, or contains an unknown option.
        """
        try:
            return cls._grouped(yaml.safe_load(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            problem = f"the configuration cannot be used: {refused(error)}"
            raise UsageError(problem, where=path, remedy="restore the file, or start a new study") from error
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            problem = f"the configuration cannot be read: {one_line(error)}"
            raise UsageError(problem, where=path, remedy="restore the file, or start a new study") from error


def schema_of_options() -> dict[str, Any]:
    """Returns pydantic's JSON schema of all options side by side."""
    return _Flat.model_json_schema()


def _of(flat: _Flat, group: type[_Group]) -> _Group:
    """Returns a group with the values that the flat form has for its settings."""
    return group(**{name: getattr(flat, name) for name in group.model_fields})


def refused(error: ValidationError) -> UsageError:
    """Returns the first pydantic validation error as an error about the command line."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return UsageError(f"got {first['input']!r}", remedy="give a mapping of options, such as budget: 50")
    option = option_name(str(first["loc"][0]))
    if first["type"] == "extra_forbidden":
        return UsageError("there is no such option", where=option, remedy="see optimize --help")
    what = first["msg"][0].lower() + first["msg"][1:]
    return UsageError(f"got {first['input']!r}", where=option, remedy=what.replace("input should", "it should"))
