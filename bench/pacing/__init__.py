"""``pascal bench pacing``: what the delivery of tokens to readers costs, and how punctual it is."""
