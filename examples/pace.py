"""Read slowly, then fast: change the pace of an answer while it streams."""

import json
import sys
import time

from websockets.sync.client import connect

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
address = url.replace("http", "ws", 1) + "/v1/responses"
create = {
    "type": "response.create",
    "input": "What is 348 + 275?",
    "pacing": {"tpot_s": 0.3},  # seconds for each token of the answer
    "forced_lengths": {"reasoning_tokens": 20, "answer_tokens": 30},
}

with connect(address) as socket:
    socket.send(json.dumps(create))
    arrivals = []
    for message in socket:
        event = json.loads(message)
        if event["type"] == "response.created":
            response_id = event["response"]["id"]
        if event["type"] == "response.output_text.delta":
            arrivals.append(time.monotonic())
            if len(arrivals) == 10:
                update = {"type": "response.pacing.update", "response_id": response_id}
                socket.send(json.dumps(update | {"tpot_s": 0.05}))
        if event["type"] == "response.completed":
            break

slow_s = (arrivals[9] - arrivals[0]) / 9
fast_s = (arrivals[-1] - arrivals[10]) / (len(arrivals) - 11)
print(f"{slow_s:.2f} s between tokens at first, {fast_s:.2f} s after the change")
