"""Names that are safe in tables, tensor headers and file names."""

from __future__ import annotations

import re


def clean_name(text: str, limit: int = 64) -> str:
    """Returns the text with every character outside ``A-Za-z0-9.+_-`` replaced by ``_``, without leading dots and dashes; never empty.

    Args:
        text: any string, for instance from an untrusted file.
        limit: maximum length of the result, in characters.
    """
    cleaned = re.sub(r"[^A-Za-z0-9.+_-]+", "_", text).lstrip(".-")[:limit].rstrip(".")
    return cleaned if cleaned.strip("_") else "adapter"
