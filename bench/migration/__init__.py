"""``pascal bench migration``: what a move to another engine takes and is worth."""
