"""Scheduling decisions: pure functions of what the scheduler sees of its requests."""
