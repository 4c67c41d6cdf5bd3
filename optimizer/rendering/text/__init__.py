"""Text: prompts with weights and of any length, as A1111 reads them, for every family of text encoders."""
