"""Evaluation: prompts, pictures and scores of one candidate after another, and the confirmation of the best."""
