"""The root of all errors that a measurement reports to the user."""

from __future__ import annotations


class BenchmarkError(Exception):
    """A measurement failed, or cannot begin; the message says why, for people."""
