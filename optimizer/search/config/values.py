"""Types of option values: paths as text, and durations."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

from pydantic import BeforeValidator

DEMO, FAKE = "demo:", "fake:"
"""Prefixes of names that the demo world and the fake renderer resolve, instead of the file system."""

KeepImages = Literal["best", "all", "none"]
Dtype = Literal["fp16", "bf16", "fp32"]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: object) -> object:
    """Returns seconds from ``90``, ``90s``, ``15m``, ``8h`` or ``1h30m``; other values are returned unchanged, for pydantic to reject."""
    if not isinstance(text, str) or not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        return text
    return sum(float(number) * _UNITS[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([smhd])", text))


def _text(path: object) -> object:
    return os.fspath(path) if isinstance(path, os.PathLike) else path


PathText = Annotated[str, BeforeValidator(_text)]
"""A path or a name, as text; from Python a ``Path`` is accepted too."""


def absolute(path: str) -> str:
    """Returns the absolute path, with ``~`` expanded; an empty path is returned unchanged."""
    return os.path.abspath(os.path.expanduser(path)) if path else path


def absolute_if_there(path: str) -> str:
    """Returns the absolute path of an existing file or folder; other names, which another component resolves, are returned unchanged."""
    return absolute(path) if path and not path.startswith(FAKE) and os.path.exists(absolute(path)) else path


def absolute_parts(names: str) -> str:
    """Returns names that are separated by commas with those of existing files and folders as absolute paths."""
    if os.path.exists(absolute(names)):
        return absolute_if_there(names)
    return ",".join(absolute_if_there(name.strip()) for name in names.split(","))


def option_key(field: str) -> str:
    """Returns a setting's key in a YAML file: its name, without the underscore at the end of one that is a Python keyword."""
    return field.rstrip("_")


def option_name(field: str) -> str:
    """Returns a setting's flag."""
    return f"--{option_key(field).replace('_', '-')}"
