"""A device that is not there: vLLM's engine with modelled step times."""
