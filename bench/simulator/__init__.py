"""A cluster in virtual time, on vLLM's real scheduler."""
