"""The two hashes by which sd-scripts and the web UIs know a LoRA whatever its file is called and however its metadata are edited."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor

from optimizer.adapters.files.container import serialise

_WINDOW = slice(0x100000, 0x110000)


def model_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[str, str]:
    """``sshs_model_hash`` and ``sshs_legacy_hash`` of a file with these tensors and metadata.

    As sd-scripts computes them (library/train_util.py, precalculate_safetensors_hashes): over the file as it would be with the
    ``ss_`` metadata alone, the SHA-256 digest of everything behind the header, and the first eight digits of that of 64 KiB
    from 1 MiB on (of nothing, in a smaller file).
    """
    data = serialise(tensors, {key: value for key, value in metadata.items() if key.startswith("ss_")})
    start = 8 + int.from_bytes(data[:8], "little")
    return hashlib.sha256(data[start:]).hexdigest(), hashlib.sha256(data[_WINDOW]).hexdigest()[:8]
