"""Names: keys of every dialect and the canonical module paths that they mean."""
