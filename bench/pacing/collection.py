"""How long a full garbage collection takes that finds many responses in memory.

Made from `gateway.response.session.Session` alone, in a process of its own, without sockets. What
exists before the sessions is frozen, as in the gateway.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from bench.pacing.stage.frames import ANSWER_TEXT, THOUGHT_TEXT
from bench.policies.engine_process import EngineProcess, Send
from gateway.config import PacingConfig, SessionConfig
from gateway.response.session import Session
from gateway.schemas.bodies import ResponsesBody, parse_body
from gateway.schemas.generation import default_targets, from_responses
from workers.messages import TokenRun, answers_after

_REPEATS = 5
_STEP_S = 0.03  # between two tokens of a session
_THOUGHTS: Final = 3  # one token in so many is a reasoning token


class Work(msgspec.Struct, frozen=True):
    """How many sessions, each with how many tokens."""

    sessions: int
    tokens: int


FULL: Final = Work(sessions=1000, tokens=2000)
QUICK: Final = Work(sessions=100, tokens=2000)


def in_own_process(work: Work, core: int | None) -> dict[str, Any]:
    """Measure in a new process, whose memory holds nothing else."""
    with EngineProcess("the sessions", "bench.pacing.collection", core=core) as process:
        process.send(work)
        return dict(process.receive(dict))


def make_session(number: int, tokens: int) -> Session:
    """A session that still runs, with so many tokens, some released and some not yet due."""
    generation = from_responses(
        parse_body({"input": "x"}, ResponsesBody), (), default_targets(PacingConfig(), {})
    )
    session = Session(
        f"resp_{number:032x}",
        generation,
        model="m",
        owner="",
        created_at=0.0,
        now=0.0,
        log_bytes=SessionConfig().log_bytes,
    )
    session.accepted("worker-0", 20, True)
    thoughts = tokens // _THOUGHTS
    for position in range(tokens):
        now = position * _STEP_S
        run = TokenRun(
            request_id=session.response_id,
            position=position,
            token_ids=(10_000 + position,),
            texts=(THOUGHT_TEXT if position <= thoughts else ANSWER_TEXT,),
            turns=answers_after(0 if position == thoughts else None),
        )
        session.tokens(run, now)
        session.release(now)
    return session


def collection_s() -> float:
    """The time of a full collection, the shortest of several."""
    took = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        gc.collect()
        took.append(time.perf_counter() - began)
    return min(took)


def measure(work: Work) -> dict[str, Any]:
    """Make the sessions and collect."""
    gc.collect()
    gc.freeze()
    before_s = collection_s()
    gc.disable()  # while they are made, collections would only take time
    sessions = [make_session(number, work.tokens) for number in range(work.sessions)]
    after_s = collection_s()
    tracked = len(gc.get_objects())
    return {
        "sessions": len(sessions),
        "tokens_per_session": work.tokens,
        "before_ms": 1e3 * before_s,
        "full_ms": 1e3 * after_s,
        "added_ms": 1e3 * (after_s - before_s),
        "tracked_objects": tracked,
    }


def serve(messages: Iterator[bytes], send: Send) -> None:
    """Entry point of `bench.policies.engine_process`."""
    for message in messages:
        send(measure(msgspec.json.decode(message, type=Work)))
