"""Formats of models: how prompts are written, and what in the output is thought, answer, call."""
