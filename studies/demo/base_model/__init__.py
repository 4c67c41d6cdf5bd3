"""The base of the demo world: text encoder, autoencoder and U-Net, and their training."""
