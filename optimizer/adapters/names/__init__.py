"""Names: maps the keys of every dialect to canonical module paths and back."""
