"""Inspection: what LoRA files hold, how strong they are, how alike several are, and what follows from that in words."""
