"""The Responses API over HTTP: responses, and conversations that hold their items."""
