"""Blocks: named parts of a network, their weights, and the forms in which other tools write such weights."""
