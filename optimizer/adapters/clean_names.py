"""Names that are safe in tables, tensor headers and file names."""

from __future__ import annotations

import re
import unicodedata

_KEPT = frozenset(".+_-")
_KINDS = frozenset("LMN")  # letters, their marks, and numbers; control, formatting and space characters are of other kinds


def clean_name(text: str, limit: int = 64) -> str:
    """Returns the text with everything but letters and digits of any script and ``.+_-`` replaced by ``_``; never empty.

    Equal letters have equal codes (NFC), and the name begins with no dot, dash or mark.

    Args:
        text: any string, for instance from an untrusted file.
        limit: maximum length of the result, in bytes of UTF-8, as file systems count.
    """
    composed = unicodedata.normalize("NFC", text)
    kept = re.sub("\0+", "_", "".join(c if c in _KEPT or unicodedata.category(c)[0] in _KINDS else "\0" for c in composed))
    while kept and (kept[0] in ".-" or unicodedata.category(kept[0])[0] == "M"):
        kept = kept[1:]
    cleaned = kept.encode()[:limit].decode(errors="ignore").rstrip(".")
    return cleaned if cleaned.strip("_") else "adapter"[:limit]
