"""What a request refers to: earlier responses, and items of theirs."""
