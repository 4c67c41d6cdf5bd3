"""Files: what stands in a safetensors file, its digests, and where the base model that it needs lies."""
