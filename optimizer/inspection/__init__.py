"""Inspection: contents and strength of LoRA files, similarity of pairs, and a diagnosis in sentences."""
