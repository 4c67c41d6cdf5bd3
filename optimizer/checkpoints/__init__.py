"""Checkpoints: full models as files, in folders and in single files, read tensor by tensor and written in the layout that they came in."""
