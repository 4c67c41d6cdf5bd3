"""The embedder of the demo world: its pictures, training and accuracy."""
