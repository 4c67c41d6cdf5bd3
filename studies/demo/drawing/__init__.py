"""Procedural drawings: scenes, characters and styles, and how pictures of them are softened and damaged."""
