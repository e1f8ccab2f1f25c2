"""``pascal bench migration``: cost and benefit of a move to another engine."""
