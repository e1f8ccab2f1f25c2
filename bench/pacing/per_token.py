"""CPU time per token: the gateway's whole path, aiohttp's bare send, and a bare write.

One gateway for each transport. A third of the streams get reasoning tokens, two thirds answering
tokens, all at the same pace, in steady state. A window of one case follows a window of the next, on
the same core and with the same readers' process, and the results are medians over rounds.

The gateway's time is that of its whole process. Nothing is subtracted. Beside it, over WebSocket,
is that of the prototype (`bench.pacing.stage.prototype`).
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from bench.pacing.stage.frames import ANSWER, THINK, TRANSPORTS, Transport
from bench.pacing.stage.machine import BUSY, CROWDED, Cores, Usage, allow_streams
from bench.pacing.stage.scene import Scene, gateway_scene, prototype_scene
from bench.pacing.stage.talk import Helper
from bench.reporting.errors import BenchmarkError

PERIOD_S: Final = 0.1  # one token for each stream
BATCH: Final = 64  # of the case called "path"
_LEAD = 5  # answering tokens that a reader's buffer holds
_SETTLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    streams: int = 1000  # over each transport
    rounds: int = 9
    other_rounds: int = 3  # of other batches, and of each phase alone
    window_s: float = 1.0
    warm_s: float = 0.6  # before a window
    transports: tuple[Transport, ...] = TRANSPORTS
    all_cases: tuple[Transport, ...] = TRANSPORTS  # with other batches, and each phase alone


FULL: Final = Extent()
QUICK: Final = Extent(streams=500, rounds=2, other_rounds=1, window_s=1.0, all_cases=("ws",))


@dataclass(frozen=True, slots=True)
class _Path:
    """A case of the gateway: who gets tokens, in frames of how many requests."""

    name: str
    batch: int
    roles: tuple[str, ...] = (THINK, ANSWER)
    period_s: float = PERIOD_S


_MIXED = _Path("path", BATCH)
_PROTOTYPE = _Path("prototype", BATCH)
_OTHERS = (
    _Path("path_batch_8", 8),
    _Path("path_batch_256", 256),
    # A third of the streams, so three times as often: the same number of tokens.
    _Path("thoughts", BATCH, (THINK,), PERIOD_S / 3),
    _Path("answers", BATCH, (ANSWER,)),
)


def measure(extent: Extent, cores: Cores, progress: Callable[[str], None]) -> dict[str, Any]:
    """:return: by transport, microseconds of each case with their spread."""
    allow_streams(extent.streams)
    return {
        transport: _of_transport(transport, extent, cores, progress)
        for transport in extent.transports
    }


def _of_transport(
    transport: Transport, extent: Extent, cores: Cores, progress: Callable[[str], None]
) -> dict[str, Any]:
    roles = [THINK if number % 3 == 0 else ANSWER for number in range(extent.streams)]
    cases = (_MIXED, *(_OTHERS if transport in extent.all_cases else ()))
    samples: dict[str, list[_Window]] = defaultdict(list)
    with ExitStack() as stack:
        stage = stack.enter_context(gateway_scene(cores, extent.streams))
        sides = [(stage, case) for case in cases]
        if transport == "ws":
            least = stack.enter_context(prototype_scene(cores, extent.streams))
            sides.insert(1, (least, _PROTOTYPE))
        server = stack.enter_context(
            Helper("the bare server", "bench.pacing.stage.bare_server", core=cores.server)
        )
        readers = stack.enter_context(
            Helper("the other readers", "bench.pacing.stage.readers", core=cores.clients)
        )
        for one in {id(one): one for one, _ in sides}.values():
            one.readers.ask("open", port=one.port, transport=transport, roles=roles)
        readers.ask("open", port=server.ask("start"), transport=transport, roles=roles)
        payloads: dict[str, str] = {}
        for number in range(extent.rounds):
            progress(f"{transport}, round {number + 1} of {extent.rounds}")
            for one, case in sides if number % 2 == 0 else reversed(sides):
                if case in _OTHERS and number >= extent.other_rounds:
                    continue
                samples[case.name].append(_path(one, case, extent))
                if case is _MIXED:
                    payloads = payloads or _payloads(stage.readers)
                    for how in ("send", "write"):
                        samples[how].append(
                            _bare(server, readers, how, transport, payloads, extent)
                        )
    return _summary(samples, payloads)


@dataclass(frozen=True, slots=True)
class _Window:
    us: float  # CPU time per token
    tokens_s: float
    share: float  # of the core
    client_share: float
    waited_share: float


def _path(stage: Scene, case: _Path, extent: Extent) -> _Window:
    workers, readers = stage.workers, stage.readers
    seconds = extent.warm_s + extent.window_s + _SETTLE_S
    workers.tell(
        "drive",
        roles=case.roles,
        batch=case.batch,
        period_s=case.period_s,
        lead=_LEAD,
        seconds=seconds,
    )
    time.sleep(extent.warm_s)
    window = _window(stage.server.pid, readers, lambda: time.sleep(extent.window_s))
    workers.hear()
    time.sleep(_LEAD * PERIOD_S + _SETTLE_S)  # until the buffers are empty
    return window


def _bare(
    server: Helper,
    readers: Helper,
    how: str,
    transport: Transport,
    payloads: dict[str, str],
    extent: Extent,
) -> _Window:
    def release() -> None:
        server.ask(
            "release",
            how=how,
            transport=transport,
            payloads=payloads,
            seconds=extent.window_s,
            period_s=PERIOD_S,
        )
        time.sleep(0.05)  # until the last frames are read

    return _window(server.pid, readers, release)


def _window(pid: int, readers: Helper, wait: Callable[[], None]) -> _Window:
    before, began = readers.ask("count"), Usage.of(pid)
    wait()
    ended, after = Usage.of(pid), readers.ask("count")
    if after["lost"]:
        raise BenchmarkError(f"{after['lost']} of the streams ended early")
    tokens = after["tokens"] - before["tokens"]
    if not tokens:
        raise BenchmarkError("no token was delivered")
    passed_s = after["now_s"] - before["now_s"]
    return _Window(
        us=1e6 * (ended.cpu_s - began.cpu_s) / tokens,
        tokens_s=tokens / passed_s,
        share=ended.share_since(began),
        client_share=(after["cpu_s"] - before["cpu_s"]) / passed_s,
        waited_share=ended.waited_share_since(began),
    )


def _payloads(readers: Helper) -> dict[str, str]:
    payloads: dict[str, str] = readers.ask("samples")
    if missing := {THINK, ANSWER} - payloads.keys():
        raise BenchmarkError(f"no whole frame was received by streams that {missing.pop()}")
    return payloads


def _summary(samples: dict[str, list[_Window]], payloads: dict[str, str]) -> dict[str, Any]:
    median = {
        name: statistics.median(one.us for one in windows) for name, windows in samples.items()
    }
    return {
        **median,
        "path_over_send": median["path"] / median["send"],
        "spread": {
            name: [min(one.us for one in windows), max(one.us for one in windows)]
            for name, windows in samples.items()
        },
        "tokens_s": statistics.median(one.tokens_s for one in samples["path"]),
        "cpu_share": statistics.median(one.share for one in samples["path"]),
        "client_cpu_share": max(one.client_share for of in samples.values() for one in of),
        "waited_share": max(one.waited_share for of in samples.values() for one in of),
        "warnings": _warnings([one for of in samples.values() for one in of]),
        "frame_bytes": {role: len(text) for role, text in payloads.items()},
    }


def _warnings(windows: Sequence[_Window]) -> list[str]:
    found = []
    clients = max(one.client_share for one in windows)
    if clients > BUSY:
        found.append(f"the readers used {clients:.0%} of their core and may be the bottleneck")
    waited = statistics.median(one.waited_share for one in windows)
    if waited > CROWDED:
        found.append(
            f"the servers waited for their core in {waited:.0%} of the time: other processes used "
            "it"
        )
    return found
