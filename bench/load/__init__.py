"""``pascal load``: the load generator."""
