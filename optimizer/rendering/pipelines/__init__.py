"""Pipelines: diffusers pipelines loaded from folders and single files, with other parts in place of their own, quantised or not."""
