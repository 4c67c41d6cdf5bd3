"""Finds the one merged LoRA that keeps what each of several LoRAs is good at."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optimizer.adapters import Adapter, Factors, load_adapter, save_adapter
    from optimizer.merging import Recipe, merge
    from optimizer.search.run import Study, optimize

__all__ = ["Adapter", "Factors", "Recipe", "Study", "load_adapter", "merge", "optimize", "save_adapter"]

_HOMES = {
    "Adapter": "optimizer.adapters",
    "Factors": "optimizer.adapters",
    "Recipe": "optimizer.merging",
    "Study": "optimizer.search.run",
    "load_adapter": "optimizer.adapters",
    "merge": "optimizer.merging",
    "optimize": "optimizer.search.run",
    "save_adapter": "optimizer.adapters",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use: ``import optimizer`` alone costs no second of torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
