"""Kinds of adapter that need the base model's weights: DoRA, (IA)³, OFT, BOFT and GLoRA become plain low-rank factors."""
