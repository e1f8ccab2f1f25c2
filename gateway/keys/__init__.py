"""API keys: whose a request is, what it may do, and how much of its limits is left."""
