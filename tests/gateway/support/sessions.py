"""A session and a worker's words for it, without a worker."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.config import PacingConfig
from gateway.response.session import Session
from gateway.schemas.bodies import ResponsesBody, parse_body
from gateway.schemas.generation import default_targets, from_responses
from workers.messages import Finish, FinishReason, TokenRun

END_OF_THINKING = 4


def make_session(now: float = 0.0, log_capacity: int = 1000, **fields: Any) -> Session:
    """A session of a Responses body, submitted at ``now``."""
    body = parse_body({"input": "What is 2 + 2?", **fields}, ResponsesBody)
    return Session(
        "resp_1",
        from_responses(body, (), default_targets(PacingConfig(), {})),
        model="m",
        owner="",
        created_at=0.0,
        now=now,
        log_capacity=log_capacity,
    )


class ScriptedWorker:
    """Feeds a session the runs of an engine that delivers text token by token."""

    def __init__(self, session: Session, *, reasoning: bool = True) -> None:
        self.session = session
        self._position = 0
        session.accepted("worker-0", 7, reasoning)

    def say(self, *texts: str, now: float, boundary: bool = False) -> None:
        """Tokens of one step; with ``boundary`` the last one ends the thinking."""
        self._run(texts, now, boundary=len(texts) - 1 if boundary else None)

    def finish(self, now: float, reason: FinishReason = "stop", **fields: Any) -> None:
        """The engine's last word, with the end-of-text token if it stopped by itself."""
        texts = ("",) if reason == "stop" else ()
        self._run(texts, now, finish=Finish(reason=reason, **fields))

    def _run(self, texts: tuple[str, ...], now: float, **fields: Any) -> None:
        boundary = fields.get("boundary")
        ids = [END_OF_THINKING if index == boundary else 9 for index in range(len(texts))]
        run = TokenRun(
            request_id=self.session.response_id,
            position=self._position,
            token_ids=tuple(ids),
            texts=texts,
            **fields,
        )
        self._position += len(texts)
        self.session.tokens(run, now)


def run_to_end(session: Session) -> float:
    """Release at every due moment; returns the time of the last one."""
    due = 0.0
    while (at := session.next_release_s()) is not None:
        due = at
        session.release(due)
    return due


def events_of(session: Session) -> list[dict[str, Any]]:
    """All events so far."""
    return [msgspec.json.decode(entry.data) for entry in session.log.after(-1)]


def types_of(session: Session) -> list[str]:
    """Their types, without the common beginning."""
    return [event["type"].removeprefix("response.") for event in events_of(session)]
