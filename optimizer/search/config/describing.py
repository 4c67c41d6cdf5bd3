"""Description of the options for people and editors: an example of a YAML file, and its JSON schema."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from optimizer.search.config.config import GROUPS, OPTIONS, schema_of_options
from optimizer.search.config.option import Panel, option_of
from optimizer.search.config.values import option_key

_WIDTH, _ENDLESS = 100, 10_000
_GIVEN = {"sources": ["style.safetensors", "hero.safetensors"], "base": "./stable-diffusion-xl-base-1.0", "budget": 50}


def json_schema() -> dict[str, Any]:
    """Returns the JSON schema (draft 2020-12) of a YAML file with options, of which none is required: flags may add to the file."""
    found = schema_of_options()
    order = [name for name in _in_order() if name in found["properties"]]
    plain = {option_key(name): {key: value for key, value in found["properties"][name].items() if key != "title"} for name in order}
    for declared in plain.values():
        if declared.get("format") == "path":
            del declared["format"]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Options of optimize", "type": "object"}
    return {**head, "additionalProperties": False, "properties": plain}


def example_yaml() -> str:
    """Returns a YAML file that gives sources, base and budget, and holds every other option as a comment, with its default."""
    lines = ["# A file for optimize --config FILE.yaml. Flags win over it. Remove a # to give another value than the default."]
    for panel in Panel:
        lines += ["", f"# {panel}", *_panel(panel)]
    return "\n".join(lines) + "\n"


def _panel(panel: Panel) -> Iterator[str]:
    for name in _in_order():
        field = OPTIONS[name]
        if option_of(field).panel == panel:
            yield ""
            yield from (f"# {line}" for line in textwrap.wrap(field.description or "", _WIDTH - 2))
            yield _setting(name, field)


def _setting(name: str, field: FieldInfo) -> str:
    given = name in _GIVEN
    value = _GIVEN[name] if given else list(field.default) if isinstance(field.default, tuple) else field.default
    plain = value if isinstance(value, int | float | list | None) else str(value)
    text = yaml.safe_dump([plain], default_flow_style=True, width=_ENDLESS).strip()[1:-1]
    return f"{'' if given else '#'}{option_key(name)}: {text}"


def _in_order() -> list[str]:
    """Names of all options in the order of the help text."""
    return [name for group in GROUPS for name in group.model_fields]
