"""One response from its first token to its last event. No I/O."""
