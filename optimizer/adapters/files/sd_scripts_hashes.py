"""The two hashes by which sd-scripts and the web UIs identify a LoRA independently of its file name and edited metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor

from optimizer.adapters.files.container import serialise

_WINDOW = slice(0x100000, 0x110000)


def model_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[str, str]:
    """Returns ``sshs_model_hash`` and ``sshs_legacy_hash`` of a file with these tensors and metadata.

    Computed as in sd-scripts (library/train_util.py, precalculate_safetensors_hashes), over the file with the ``ss_`` metadata only:
    the SHA-256 digest of all bytes after the header, and the first eight hex digits of the SHA-256 digest of the 64 KiB from offset
    1 MiB (of no bytes in a smaller file).
    """
    data = serialise(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    start = 8 + int.from_bytes(data[:8], "little")
    return hashlib.sha256(data[start:]).hexdigest(), hashlib.sha256(data[_WINDOW]).hexdigest()[:8]
