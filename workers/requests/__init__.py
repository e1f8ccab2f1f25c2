"""One request inside a worker: from its messages to token ids and back to text."""
