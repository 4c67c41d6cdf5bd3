"""The search: search space, sampler selection, initial trials, evaluation of candidates, optimization loop, confirmation, and the run."""
