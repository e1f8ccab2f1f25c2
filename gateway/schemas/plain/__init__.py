"""Prompts that are no conversations: completions, and the tokens of texts."""
