"""KV that leaves GPU memory: offloaded to host memory, or moved to another engine."""
