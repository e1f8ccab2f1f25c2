"""A session, and the runs of a worker for it, without a worker."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.config import PacingConfig
from gateway.response.session import Session
from gateway.schemas.bodies import ResponsesBody, parse_body
from gateway.schemas.generation import default_targets, from_responses
from workers.messages import Finish, FinishReason, TokenRun, answers_after

END_OF_THINKING = 4


def make_session(now: float = 0.0, log_bytes: int = 1_000_000, **fields: Any) -> Session:
    """A session of a Responses body, submitted at ``now``."""
    body = parse_body({"input": "What is 2 + 2?", **fields}, ResponsesBody)
    return Session(
        "resp_1",
        from_responses(body, (), default_targets(PacingConfig(), {})),
        model="m",
        owner="",
        created_at=0.0,
        now=now,
        log_bytes=log_bytes,
    )


class ScriptedWorker:
    """Feeds a session the runs of an engine that delivers text token by token."""

    def __init__(self, session: Session, *, reasoning: bool = True) -> None:
        self.session = session
        self._position = 0
        session.accepted("worker-0", 7, reasoning)

    def say(self, *texts: str, now: float, boundary: bool = False) -> None:
        """Send the tokens of one step. With ``boundary`` the last one ends the reasoning."""
        self._run(texts, now, boundary=len(texts) - 1 if boundary else None)

    def finish(self, now: float, reason: FinishReason = "stop", **fields: Any) -> None:
        """Send the finish, with the end-of-text token if the engine stopped by itself."""
        texts = ("",) if reason == "stop" else ()
        self._run(texts, now, finish=Finish(reason=reason, **fields))

    def _run(self, texts: tuple[str, ...], now: float, **fields: Any) -> None:
        boundary = fields.pop("boundary", None)
        ids = [END_OF_THINKING if index == boundary else 9 for index in range(len(texts))]
        run = TokenRun(
            request_id=self.session.response_id,
            position=self._position,
            token_ids=tuple(ids),
            texts=texts,
            turns=answers_after(boundary),
            **fields,
        )
        self._position += len(texts)
        self.session.tokens(run, now)


def run_to_end(session: Session) -> float:
    """Release each token when it is due, and return the time of the last one."""
    due = 0.0
    while (at := session.next_release_s()) is not None:
        due = at
        session.release(due)
    return due


def events_of(session: Session) -> list[dict[str, Any]]:
    """The session's events so far."""
    return [msgspec.json.decode(entry.data) for entry in session.log.after(-1)]


def types_of(session: Session) -> list[str]:
    """The types of the events, without their common prefix."""
    return [event["type"].removeprefix("response.") for event in events_of(session)]
