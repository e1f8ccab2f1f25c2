"""Ask one question over a WebSocket, with the `openai` package. Thoughts and answer stream."""

import sys

from openai import OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
client = OpenAI(base_url=f"{url}/v1", api_key="none")

with client.responses.connect() as connection:  # one WebSocket carries any number of responses
    connection.response.create(model="tiny-reasoner", input="What is 348 + 275?")
    for event in connection:
        if event.type in ("response.reasoning_text.delta", "response.output_text.delta"):
            print(event.delta, end="", flush=True)
        if event.type == "response.completed":
            print(f"\n{event.response.usage.output_tokens} tokens")
            break
        if event.type == "error":  # refused: for example, the server has another model
            sys.exit(event.error.message)
