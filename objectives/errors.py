"""Exceptions of the embedders."""

from __future__ import annotations


class EmbedderError(ValueError):
    """The embedder cannot be loaded."""
