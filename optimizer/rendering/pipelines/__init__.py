"""Pipelines: diffusers pipelines loaded from folders and single files, optionally with replaced or quantised components."""
