"""``pascal simulate paper``: the evaluation of the paper."""
