"""Proposals: the search space, the samplers, and the initial trials of a study."""
