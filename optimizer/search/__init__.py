"""The search: space, sampler rule, warm starts, evaluating one candidate, the loop, confirmation, the run."""
