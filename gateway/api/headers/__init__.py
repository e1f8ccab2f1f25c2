"""Headers of requests and responses that belong to no single route."""
