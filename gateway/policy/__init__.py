"""Placement decisions: pure functions of what the gateway sees of its instances."""
