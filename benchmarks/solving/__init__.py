"""What merges that are solved on the base model are worth: ``python -m benchmarks.solving``."""
