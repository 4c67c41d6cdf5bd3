"""Candidates: a delta, or other weights altogether, put into a live model and taken out again."""
