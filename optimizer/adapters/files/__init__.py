"""Files: contents and digests of safetensors files, and the location of the base model."""
