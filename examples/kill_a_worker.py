"""Kill the worker that serves an answer, and watch the answer go on from another worker.

Run it on the machine of the server: it sends the signal SIGKILL to a process of that server.
"""

import json
import os
import signal
import sys
import urllib.request

from websockets.sync.client import connect

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
address = url.replace("http", "ws", 1) + "/v1/responses"


def kill_the_busy_worker() -> None:
    """End the process of the first instance that has a request."""
    with urllib.request.urlopen(f"{url}/admin/instances") as answer:
        instances = json.load(answer)["instances"]
    busy = next(one for one in instances if one["requests"])
    os.kill(busy["pid"], signal.SIGKILL)
    print(f"\n--- killed {busy['id']}, process {busy['pid']} ---")


with connect(address) as socket:
    lengths = {"reasoning_tokens": 101, "answer_tokens": 150}
    create = {"type": "response.create", "input": "What is 348 + 275?", "forced_lengths": lengths}
    socket.send(json.dumps(create))
    tokens = 0
    for message in socket:
        event = json.loads(message)
        if event["type"].endswith("_text.delta"):
            print(event["delta"], end="", flush=True)
        if event["type"] == "response.output_text.delta":
            tokens += 1
            if tokens == 5:  # the engine still has most of the answer to generate
                kill_the_busy_worker()
        if event["type"] in ("response.completed", "response.failed"):
            break

response = event["response"]
print(
    f"\n--- {response['status']} on {response['instance']}, failovers: {response['failovers']} ---"
)
