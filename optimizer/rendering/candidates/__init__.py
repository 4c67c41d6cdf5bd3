"""Candidates: temporary application of a ΔW, or of a full set of weights, to a loaded model."""
