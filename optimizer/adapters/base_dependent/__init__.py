"""Adapter kinds that need the base model's weights: converts DoRA, (IA)³, OFT, BOFT and GLoRA to plain low-rank factors."""
