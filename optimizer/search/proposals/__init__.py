"""Proposals: what may be proposed, who proposes it, and with what a study begins."""
