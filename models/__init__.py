"""The embedded model: its problems, its tokenizer, its training recipe and its weights."""
