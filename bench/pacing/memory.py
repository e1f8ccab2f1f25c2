"""Memory of the gateway for what it holds: differences of its resident memory.

Two gateways, because memory that was freed is not given back. In the first, connections are opened
and then hold tokens that are generated and not yet due. In the second, readers take each token at
once, so that tokens are only kept, and then their responses end and are kept. The bytes of a token
are those of one more token: its response has a quarter of its tokens already.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bench.pacing.stage.frames import ANSWER
from bench.pacing.stage.machine import Cores, allow_streams, rss_bytes
from bench.pacing.stage.scene import Scene, gateway_scene

_BATCH: Final = 64
_STEP_S = 0.03
_ONE = 0.999  # step: all groups of requests make it, and none makes two
_STEADY_BYTES = 64 * 1024  # two readings this close mean that the memory does not grow
_END_S = 60.0  # for a short answer
_PATIENCE = 40  # readings
_SLOW_TPOT_S = 60.0  # so that nothing but the first token becomes due


@dataclass(frozen=True, slots=True)
class Extent:
    """How much the gateway shall hold."""

    idle: int = 1000  # connections
    responses: int = 500
    tokens: int = 400  # of each response; answering tokens only
    steady_s: float = 0.5  # between two readings of the memory


FULL: Final = Extent()
QUICK: Final = Extent(idle=400, responses=200, tokens=200)


def measure(extent: Extent, cores: Cores, progress: Callable[[str], None]) -> dict[str, Any]:
    """:return: bytes of each thing."""
    allow_streams(extent.idle + extent.responses)
    progress("idle streams and buffered tokens")
    with gateway_scene(cores, extent.idle + extent.responses) as stage:
        found = _idle_and_buffered(stage, extent)
    progress("kept tokens and finished responses")
    with gateway_scene(cores, extent.idle + extent.responses) as stage:
        found |= _kept_and_finished(stage, extent)
    return {
        **found,
        "idle_streams": extent.idle,
        "responses": extent.responses,
        "tokens_per_response": extent.tokens,
    }


def _idle_and_buffered(stage: Scene, extent: Extent) -> dict[str, float]:
    _warm_up(stage)
    empty = _steady(stage, extent.steady_s)
    port = stage.port
    stage.readers.ask(
        "open",
        port=port,
        transport="ws",
        roles=[ANSWER] * extent.idle,
        pace={"tpot_s": _SLOW_TPOT_S},
        begin=False,
    )
    idle = _steady(stage, extent.steady_s)
    stage.readers.ask("begin")
    running = _steady(stage, extent.steady_s)
    first, further = _shares(extent.tokens)
    _at_once(stage, first)
    some = _steady(stage, extent.steady_s)
    generated = _at_once(stage, further)
    buffered = _steady(stage, extent.steady_s)
    return {
        "idle_stream_bytes": (idle - empty) / extent.idle,
        "running_response_bytes": (running - idle) / extent.idle,
        "buffered_token_bytes": (buffered - some) / generated,
        "gateway_bytes": empty,
    }


def _kept_and_finished(stage: Scene, extent: Extent) -> dict[str, float]:
    _warm_up(stage)
    stage.readers.ask(
        "open",
        port=stage.port,
        transport="ws",
        roles=[ANSWER] * extent.responses,
        pace=False,
        begin=False,
    )
    idle = _steady(stage, extent.steady_s)
    stage.readers.ask("begin")
    first, further = _shares(extent.tokens)
    _one_by_one(stage, first)
    some = _steady(stage, extent.steady_s)
    generated = _one_by_one(stage, further)
    kept = _steady(stage, extent.steady_s)
    stage.workers.ask(
        "drive",
        roles=[ANSWER],
        batch=_BATCH,
        period_s=0.5,
        tokens=extent.tokens + 1,
        seconds=_END_S,
    )
    finished = _steady(stage, extent.steady_s)
    return {
        "kept_token_bytes": (kept - some) / generated,
        "finished_response_bytes": (finished - idle) / extent.responses,
    }


def _shares(tokens: int) -> tuple[int, int]:
    """The tokens that make a response begin to answer, and the further ones, which are measured."""
    first = max(1, tokens // 4)
    return first, tokens - first


def _at_once(stage: Scene, tokens: int) -> int:
    """Have each response get so many tokens in one step; :return: those of all responses."""
    sent = stage.workers.ask(
        "drive",
        roles=[ANSWER],
        batch=_BATCH,
        period_s=_STEP_S,
        lead=tokens - 1,
        seconds=_ONE * _STEP_S,
    )
    return int(sent["tokens"])


def _one_by_one(stage: Scene, tokens: int) -> int:
    """Have each response get so many tokens, one in a step; :return: those of all responses."""
    seconds = (tokens - 1 + _ONE) * _STEP_S
    sent = stage.workers.ask(
        "drive", roles=[ANSWER], batch=_BATCH, period_s=_STEP_S, seconds=seconds
    )
    return int(sent["tokens"])


def _warm_up(stage: Scene) -> None:
    """Have the gateway serve some responses to their end, which leave what it keeps anyway."""
    roles = [ANSWER] * 64
    stage.readers.ask("open", port=stage.port, transport="ws", roles=roles, pace=False)
    stage.workers.ask(
        "drive", roles=[ANSWER], batch=_BATCH, period_s=0.02, tokens=20, seconds=_END_S
    )
    time.sleep(0.2)
    stage.readers.ask("close")


def _steady(stage: Scene, every_s: float) -> int:
    """The gateway's memory once it does not change any more."""
    before = rss_bytes(stage.server.pid)
    for _ in range(_PATIENCE):
        time.sleep(every_s)
        after = rss_bytes(stage.server.pid)
        if abs(after - before) <= _STEADY_BYTES:
            return after
        before = after
    return before
