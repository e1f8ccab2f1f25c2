"""What a child of `bench.policies.engine_process` runs in tests; it answers, prints and fails."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import msgspec

from bench.policies.engine_process import Send


def serve(messages: Iterator[bytes], send: Send) -> None:
    """Answer every text with itself, the process and its core; ``fail`` raises, ``hang`` waits."""
    for message in messages:
        text = msgspec.json.decode(message, type=str)
        print("a library prints this to standard output")
        if text == "fail":
            raise RuntimeError("these are its last words")
        if text == "hang":
            send([text, os.getpid(), 0])
            time.sleep(3600)
        send([text, os.getpid(), *os.sched_getaffinity(0)])
