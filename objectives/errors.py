"""What goes wrong with an embedder."""

from __future__ import annotations


class EmbedderError(ValueError):
    """The embedder cannot be loaded."""
