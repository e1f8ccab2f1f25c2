"""The vLLM engine behind one interface, in the worker's process or in one of its own."""
