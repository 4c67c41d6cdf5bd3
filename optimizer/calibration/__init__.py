"""Calibration: what passes over the live model tell: compositions, activations, solved routers, distillation."""
