"""Long conversations over each API: whether their KV is found again."""
