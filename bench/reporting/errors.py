"""The root of what can go wrong in a measurement."""

from __future__ import annotations


class BenchmarkError(Exception):
    """A measurement failed; the message is for people."""
