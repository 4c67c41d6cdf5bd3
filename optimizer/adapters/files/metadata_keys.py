"""What a file's metadata say of it, whichever trainer or tool wrote them: ModelSpec's keys, sd-scripts' and others in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TRIGGER = ("modelspec.trigger_phrase", "ss_trigger_phrase", "trigger_word")
LICENCE = ("modelspec.license", "ss_license", "license")
AUTHOR = ("modelspec.author", "ss_author", "author")
TITLE = ("modelspec.title",)
OUTPUT_NAME = ("ss_output_name",)
TAGS = "modelspec.tags"


def said(metadata: Mapping[str, str], keys: Sequence[str]) -> str:
    """The first of these that is said, without white space around it; empty where none is. It stays a stranger's text."""
    return next((text for key in keys if (text := metadata.get(key, "").strip())), "")
