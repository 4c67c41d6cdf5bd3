"""Evaluation: prompts, pictures and scores of the candidates, and the confirmation of the best."""
