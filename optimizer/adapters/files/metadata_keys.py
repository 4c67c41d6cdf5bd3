"""Metadata keys for trigger word, licence, author, title and tags: those of ModelSpec, sd-scripts and other tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TRIGGER = ("modelspec.trigger_phrase", "ss_trigger_phrase", "trigger_word")
LICENCE = ("modelspec.license", "ss_license", "license")
AUTHOR = ("modelspec.author", "ss_author", "author")
TITLE = ("modelspec.title",)
OUTPUT_NAME = ("ss_output_name",)
TAGS = "modelspec.tags"


def metadata_value(metadata: Mapping[str, str], keys: Sequence[str]) -> str:
    """Returns the first non-empty value of the keys, stripped; empty if there is none. The value is untrusted text."""
    return next((text for key in keys if (text := metadata.get(key, "").strip())), "")
