"""Dtypes of stored numbers: their names in recipes and options, in safetensors, and in torch."""

from __future__ import annotations

import torch

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""Name in recipes and options → torch dtype, of the weights that are written."""

TORCH_DTYPES: dict[str, torch.dtype] = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool},
}
"""safetensors dtype → torch dtype."""

SAFETENSORS_DTYPES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
"""torch dtype → safetensors dtype."""

FLOATS = ("F16", "BF16", "F32", "F64")
"""safetensors dtypes of weights."""

EIGHT_BITS = ("F8_E4M3", "F8_E5M2")
"""8-bit safetensors dtypes that store the values directly, unless the file also has a scale tensor."""


def dtype_name(dtype: torch.dtype) -> str:
    """Returns the name of a torch dtype in recipes and options, else its name in torch."""
    return next((name for name, known in DTYPES.items() if known == dtype), str(dtype).removeprefix("torch."))
