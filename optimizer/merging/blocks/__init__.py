"""Blocks: named parts of a network, block weights, and parsers for the block-weight formats of other tools."""
