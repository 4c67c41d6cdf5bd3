"""Algebra: low-rank matrices, their products, norms, decompositions and truncation."""
