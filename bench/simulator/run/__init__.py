"""``pascal simulate run``."""
