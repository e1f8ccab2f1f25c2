"""How the load generator sends a request: WebSocket, or HTTP with server-sent events."""
