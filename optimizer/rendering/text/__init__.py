"""Prompt text: weighted prompts of any length, in A1111's syntax, for every family of text encoders."""
