"""The engine as the worker sees it: token ids in, token ids out, one batch per step.

Two adapters implement `Engine`: `workers.engine.in_process` and `workers.engine.async_llm`. Nothing
above this module knows which one runs. All methods are called on the event loop, and all
`EngineEvents` arrive there, in the order in which things happened in the engine.

An engine has failed when its *step* raises. A command that raises is the fault of one request or
one caller, and only that one gets the error:

    submit       `EngineEvents.request_rejected` with code "internal_error"
    cancel, hand_over
                 the request ends with finish "error"
    set_pace, turn
                 the error is logged; the request is scheduled as before
    meet_peer, use_policy
                 raises
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from workers.messages import (
    Endpoint,
    FinishReason,
    Pace,
    Sampling,
    StepStats,
    Structure,
    Ticket,
    ToolChoice,
)
from workers.policy.phase import Phase

MEETING_S = 15.0  # for two engines to connect; the gateway repeats the request later
CLOSE_S = 1.5  # for an engine to end its step; one that hangs ends with the process


class EngineGone(Exception):
    """The engine was closed or has failed: it answers nothing any more."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What does not change while the engine lives."""

    name: str  # which adapter and version, for people
    max_model_len: int  # tokens of prompt and output together
    block_size: int  # tokens per KV block
    kv_blocks_total: int
    endpoint: Endpoint | None = None  # None: KV cannot move


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One request, continued or new: everything counts from the first token to generate."""

    request_id: str
    prompt_token_ids: tuple[int, ...]  # ends with the output known so far
    sampling: Sampling
    max_tokens: int  # at least 1
    phase: Phase  # of the first token to generate
    pace: Pace
    thinking_budget: int | None = None  # most reasoning tokens, boundary included; at least 1
    forced_reasoning: int | None = None  # exact number of reasoning tokens, boundary included
    forced_answer: int | None = None  # exact number of answering tokens
    forced_call: tuple[int, ...] = ()  # tokens that follow the forced answer
    user: str | None = None  # as in `workers.messages.Submit`
    known_tokens: int = 0  # at the end of the prompt: output that exists already
    ticket: Ticket | None = None  # for KV of the prompt, known output included
    # What it may call. A real engine does not see it; a script writes calls of these tools.
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: ToolChoice | None = None
    structure: Structure | None = None  # of the answer
    began: Phase | None = None  # of the first token of the known output; None: as `phase`


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Log probabilities at one position of the output, before penalties and bounds."""

    logprob: float  # of the token that was chosen
    top: tuple[tuple[int, float], ...]  # the most likely tokens, best first


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """What one request got in one step."""

    request_id: str
    token_ids: Sequence[int]
    finish: FinishReason | None = None
    cached_tokens: int = 0  # prompt tokens found in the prefix cache
    preemptions: int = 0
    ticket: Ticket | None = None  # with finish "handed_over"
    kv_tokens: int | None = None  # as in `workers.messages.TokenRun`
    message: str | None = None  # with finish "error"
    param: str | None = None  # the same: as in `workers.messages.Finish`
    logprobs: tuple[TokenScores, ...] = ()  # one for each token, if they were asked for


@dataclass(frozen=True, slots=True)
class EngineStep:
    """All outputs of one engine step, and the engine's state after it."""

    outputs: tuple[EngineOutput, ...]
    stats: StepStats


class EngineEvents(Protocol):
    """The listener of an engine. Called on the event loop; must not block or raise."""

    def request_accepted(self, request_id: str) -> None:
        """The request is in the engine's queue; its outputs follow."""

    def request_rejected(
        self, request_id: str, reason: str, code: str = "invalid_value", param: str | None = None
    ) -> None:
        """The engine itself refused the request, or could not take it; nothing of it remains.

        :param code: and ``param`` as in `workers.messages.Rejected`.
        """

    def step_finished(self, step: EngineStep) -> None:
        """Also called for a cancellation, as a batch with finish "cancelled"."""

    def engine_failed(self, reason: str) -> None:
        """The engine is broken: no request on it goes on, no event follows."""


class Engine(Protocol):
    """One vLLM engine."""

    @property
    def facts(self) -> EngineFacts:
        """What does not change while the engine lives."""

    def start(self, events: EngineEvents) -> None:
        """Begin to work. Must be called once, on the running event loop, before all else."""

    async def check_structure(self, structure: Structure, began: Phase) -> None:
        """Compile the structure of a request that is not submitted yet; takes seconds at most.

        :param began: phase of the first token of the output.
        :raises RequestRejected: if it cannot be compiled, or not here.
        """

    def vocabulary(self) -> Sequence[bytes]:
        """The text of every token id as bytes; takes seconds once, in any thread."""

    def submit(self, request: EngineRequest) -> None:
        """Queue a request whose id is not in the engine.

        Answered by `EngineEvents.request_accepted` or `request_rejected`.

        :raises RequestRejected: if its sampling parameters are wrong.
        """

    def cancel(self, request_id: str) -> None:
        """End a request and free its KV memory at once; unknown ones are ignored."""

    def set_pace(self, request_id: str, pace: Pace) -> None:
        """Tell the scheduler the reader's new pace."""

    def turn(self, request_id: str, phase: Phase) -> None:
        """Tell the scheduler a phase that only the text of the request shows."""

    def hand_over(self, request_id: str) -> None:
        """End a request, to go on elsewhere, with finish "handed_over"; unknown ones are ignored.

        Its KV stays in memory until its ticket is used or has expired.
        """

    async def use_policy(self, policy: str) -> str | None:
        """Schedule by another policy, from the next step on; :return: why not, or None.

        :raises EngineGone: if the engine was closed or has failed.
        """

    async def meet_peer(self, peer: Endpoint) -> str | None:
        """Connect to the KV memory of another engine; :return: why that failed, or None.

        Takes `MEETING_S` at most.

        :raises EngineGone: if the engine was closed or has failed.
        """

    def pause(self) -> None:
        """Begin no step until `resume`, because the link does not keep up."""

    def resume(self) -> None:
        """Undo `pause`."""

    def stats(self) -> StepStats:
        """State after the last step."""

    def since_step_s(self) -> float:
        """Seconds since the last step ended or, if later, work arrived; 0 when idle or paused."""

    async def close(self) -> None:
        """Stop, and free everything; takes seconds at most, whatever the engine is doing.

        No event follows.
        """
