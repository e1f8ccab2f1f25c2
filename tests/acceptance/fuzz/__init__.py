"""Anything at all, sent to a gateway with scripted workers."""
