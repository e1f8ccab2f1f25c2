"""The events of a response, byte for byte, as clients have always got them.

The digests were made by the code that encoded each event as a whole,
before deltas had a form of their own.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gateway.support.readers import Reader
from tests.gateway.support.sessions import ScriptedWorker, make_session

DIGESTS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "events.json").read_text(encoding="utf-8")
)["digests"]
WORDS = ("a", " b", "é", "", '\n"x\\', "\U0001d11e", "\u0007", "word ")


def played(seed: int) -> list[bytes]:
    """The events of a response with thoughts, paces, pauses and parts of characters."""
    rng = random.Random(seed)
    session = make_session(
        now=0.0, pacing=None if rng.random() < 0.8 else False, input="hé\u0001 \U0001d11e"
    )
    # Of what a response object repeats of the request, the old code had this much.
    session.generation = replace(session.generation, echo={"parallel_tool_calls": False})
    reader = Reader()
    session.log.attach(reader)
    worker = ScriptedWorker(session)
    now = 1.0
    for _ in range(rng.randrange(1, 12)):
        worker.say(rng.choice(WORDS), now=now)
        now += rng.random() * 0.2
    if rng.random() < 0.95:
        worker.say("", now=now, boundary=True)
        for _ in range(rng.randrange(0, 40)):
            due = session.next_release_s()
            then = now + rng.random() * 0.25
            while due is not None and due <= then:
                session.release(max(due, now))
                now = max(due, now)
                due = session.next_release_s()
            now = then
            worker.say(*[rng.choice(WORDS) for _ in range(rng.choice([1, 1, 1, 2, 5]))], now=now)
            if rng.random() < 0.05:
                session.set_pace(rng.choice([0.05, 0.2]), None, now, 60.0)
            if rng.random() < 0.05:
                session.set_pace(None, True, now, 60.0)
                now += 0.3
                session.set_pace(None, False, now, 60.0)
    reason = rng.choice(["stop", "stop", "length"])
    worker.finish(now=now, reason=reason, preemptions=1, cached_tokens=3)  # type: ignore[arg-type]
    while (due := session.next_release_s()) is not None:
        session.release(due)
    return reader.data


@pytest.mark.parametrize("tens", range(len(DIGESTS) // 10))
def test_every_event_is_what_it_was(tens: int) -> None:
    for seed in range(10 * tens, 10 * tens + 10):
        events = played(seed)
        assert hashlib.sha256(b"\n".join(events)).hexdigest()[:16] == DIGESTS[seed], seed
