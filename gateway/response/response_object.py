"""The Responses API's view of a session: its response object, measurements and token counts.

Pure functions of a `gateway.response.session.Session`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gateway.response.lifecycle import State
from gateway.schemas import events

if TYPE_CHECKING:
    from gateway.response.session import Session


def response_object(session: Session) -> dict[str, Any]:
    """The response object as it stands."""
    generation = session.generation
    sampling = generation.sampling
    error, reason = session.error, session.incomplete_reason
    cancelled = generation.background and reason == "cancelled"
    body: dict[str, Any] = {
        "id": session.response_id,
        "object": "response",
        "created_at": int(session.created_at),  # clients decode it as a whole number
        "status": "cancelled" if cancelled else session.status,
        "background": False,
        "error": error and {"code": error.code, "message": error.message},
        "incomplete_details": {"reason": reason} if reason and not cancelled else None,
        "instructions": generation.instructions,
        "max_output_tokens": sampling.max_tokens,
        "model": session.model,
        "output": session.transcript.output(),
        "parallel_tool_calls": True,
        "previous_response_id": generation.previous_response_id,
        "store": generation.store,
        "temperature": sampling.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "usage": usage(session) if session.finished else None,
        "user": generation.user,
        "metadata": dict(generation.metadata or {}),
        "instance": session.instance_id,
        "phase": session.phase,
        **generation.echo,
    }
    if session.finished:
        body |= {
            **measurements(session),
            "underruns": session.delivery.underruns,
            "preemptions": session.preemptions,
            "migrations": session.migrations,
            "failovers": session.failovers,
        }
    return body


def failed_object(session: Session) -> dict[str, Any]:
    """What can be said of a response in which something is broken."""
    error = session.error
    return {
        "id": session.response_id,
        "object": "response",
        "created_at": int(session.created_at),
        "status": "failed",
        "error": error and {"code": error.code, "message": error.message},
        "model": session.model,
        "output": [],
    }


def measurements(session: Session) -> dict[str, Any]:
    """The ``timing`` and ``qoe`` objects; a failed response scores 0 (paper, "QoE")."""
    results = asdict(session.delivery.measurements())
    failed = session.state is State.FAILED
    return {
        "timing": {name: results[name] for name in ("reasoning_s", "raw", "paced")},
        "qoe": {name: 0.0 if failed else results[name] for name in ("qoe", "qoe_ttfat", "qoe_e2e")},
    }


def usage(session: Session) -> dict[str, Any]:
    """Token counts of the Responses API; all generated tokens, shown or not."""
    # After a move, some of the request's own output may be in the cache of its new instance.
    cached = min(session.finish.cached_tokens, session.prompt_tokens) if session.finish else 0
    return events.usage(
        session.prompt_tokens, cached, session.output_tokens, session.reasoning_tokens
    )
