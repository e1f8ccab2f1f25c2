"""The public API over HTTP and WebSocket. aiohttp is used here and in `gateway.app` only."""
