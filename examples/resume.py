"""Drop the connection in the middle of an answer, connect again, and miss no token of it."""

import json
import sys

from websockets.sync.client import connect

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
address = url.replace("http", "ws", 1) + "/v1/responses"
text = ""

with connect(address) as socket:
    socket.send(json.dumps({"type": "response.create", "input": "What is 348 + 275?"}))
    for message in socket:
        event = json.loads(message)
        if event["type"] == "response.created":
            response_id = event["response"]["id"]
        if event["type"] == "response.output_text.delta":
            text += event["delta"]
            break  # the first token of the answer: leave now, and the socket closes

print(f"dropped the connection after {text!r}")

with connect(address) as socket:
    last = event["sequence_number"]
    resume = {"type": "response.resume", "response_id": response_id, "starting_after": last}
    socket.send(json.dumps(resume))
    for message in socket:
        event = json.loads(message)
        if event["type"] == "response.output_text.delta":
            text += event["delta"]
        if event["type"] == "response.completed":
            break

print(f"the whole answer: {text!r}")
assert text == event["response"]["output"][-1]["content"][0]["text"]
