"""How workers come to be: local processes, given addresses, or Ray."""
