"""Calibration: compositions of the model's outputs, activations, and routers that are solved on the loaded model."""
