"""Descriptions of the API for programs: OpenAPI of the routes, AsyncAPI of the WebSocket."""
