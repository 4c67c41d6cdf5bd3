"""Where in a store the contact sheets lie."""

from __future__ import annotations

FOLDER = "sheets"
