"""Completions, and the tokens of texts."""
