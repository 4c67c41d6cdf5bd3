"""Calibration: compositions of the model's outputs, activations, and routers that are solved on the loaded model."""

SOLVED = ("ssr", "iteris", "zip", "distill")
"""Names of the methods that are solved on the loaded model."""
