"""Memory: what fits where, which models wait elsewhere, and what to do when it runs out."""
