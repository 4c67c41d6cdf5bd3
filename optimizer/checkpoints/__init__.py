"""Checkpoints: full models in folders and in single files, read tensor by tensor and written in the layout of the source."""
