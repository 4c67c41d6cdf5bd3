"""Memory: free memory, placement and offload of models, and fallback after running out of memory."""
