"""How many paced readers one core holds, and how punctual their tokens are.

Readers over WebSocket at 10 tokens/s, whose workers are ahead of them. The same run is made with
the prototype (`bench.pacing.stage.prototype`), which shows what this machine can do.

Lateness is measured where the readers are, see `bench.pacing.lateness`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bench.pacing.lateness import between, buckets_of
from bench.pacing.stage.frames import ANSWER
from bench.pacing.stage.machine import BUSY, CROWDED, Cores, Usage, allow_streams
from bench.pacing.stage.scene import Gateway, Scene, gateway_scene, prototype_scene
from bench.pacing.stage.talk import Helper
from bench.reporting.errors import BenchmarkError

TAU_S: Final = 0.1
BATCH: Final = 64  # requests of one frame of a worker
_LEAD = 20  # tokens by which a worker is ahead of the reader
_THOUGHTS_PER_STEP = 4
_END_S = 20.0  # for the last events to arrive
_TIMER_LATE_MS = 5.0
_METRIC = "pascal_release_lateness_seconds"


@dataclass(frozen=True, slots=True)
class Case:
    """Readers who begin within some seconds."""

    streams: int
    spread_s: float
    tokens: int  # of each answer
    thoughts: int = 0  # reasoning tokens before it


@dataclass(frozen=True, slots=True)
class Extent:
    """The two cases: many readers, and readers who begin and end at about the same time."""

    many: Case
    together: Case | None


FULL: Final = Extent(
    many=Case(streams=4000, spread_s=10.0, tokens=250),
    together=Case(streams=500, spread_s=5.0, tokens=350, thoughts=200),
)
QUICK: Final = Extent(
    many=Case(streams=500, spread_s=2.0, tokens=60),
    together=Case(streams=200, spread_s=1.0, tokens=50, thoughts=40),
)


def measure(extent: Extent, cores: Cores, progress: Callable[[str], None]) -> dict[str, Any]:
    """:return: the first case, with the second one, if there is one, under ``together``."""
    cases = [case for case in (extent.many, extent.together) if case is not None]
    allow_streams(max(case.streams for case in cases))
    results = []
    for case in cases:
        sides = {}
        for name, make in (("prototype", prototype_scene), ("gateway", gateway_scene)):
            progress(f"{case.streams} readers, {name}")
            with make(cores, case.streams) as stage:
                sides[name] = _run(case, stage)
        results.append({**sides["gateway"], "prototype": sides["prototype"]})
    return {**results[0], "together": results[1] if len(cases) > 1 else None}


def _run(case: Case, stage: Scene) -> dict[str, Any]:
    """One case on one server."""
    workers, readers, pid = stage.workers, stage.readers, stage.server.pid
    gateway = stage.server if isinstance(stage.server, Gateway) else None  # has a metrics page
    readers.ask("open", port=stage.port, transport="ws", roles=[ANSWER] * case.streams)
    readers.ask("record")
    thinking_s = case.thoughts / _THOUGHTS_PER_STEP * TAU_S
    own_before = buckets_of(gateway.get("/metrics"), _METRIC) if gateway else {}
    workers.tell(
        "drive",
        roles=[ANSWER],
        batch=BATCH,
        period_s=TAU_S,
        lead=_LEAD,
        seconds=case.spread_s + thinking_s + case.tokens * TAU_S + _END_S,
        spread_s=case.spread_s,
        thoughts=case.thoughts,
        thoughts_per_step=_THOUGHTS_PER_STEP,
        tokens=case.tokens,
    )
    # All streams run from the begin of the last until the end of the first.
    from_s = case.spread_s + thinking_s + 2 * TAU_S
    to_s = thinking_s + (case.tokens - 1) * TAU_S
    if to_s - from_s < 5 * TAU_S:
        raise BenchmarkError("the answers are too short: the first ends before the last begins")
    time.sleep(from_s)
    counts, usages, worker_usages = [], [], []
    for wait_s in (to_s - from_s, 0.0):
        counts.append(readers.ask("count"))
        usages.append(Usage.of(pid))
        worker_usages.append(Usage.of(workers.pid))
        time.sleep(wait_s)
    worker = workers.hear()
    _until_complete(case, readers)
    own = buckets_of(gateway.get("/metrics"), _METRIC) if gateway else {}
    found = readers.ask(
        "analyse",
        tau_s=TAU_S,
        tokens=case.tokens,
        from_s=counts[0]["now_s"],
        to_s=counts[1]["now_s"],
    )
    passed_s = counts[1]["now_s"] - counts[0]["now_s"]
    result = {
        "streams": case.streams,
        "tokens_s": (counts[1]["tokens"] - counts[0]["tokens"]) / passed_s,
        **found,
        "cpu_share": usages[1].share_since(usages[0]),
        "waited_share": usages[1].waited_share_since(usages[0]),
        "client_cpu_share": (counts[1]["cpu_s"] - counts[0]["cpu_s"]) / passed_s,
        "worker_cpu_share": worker_usages[1].share_since(worker_usages[0]),
        "worker_late_max_ms": 1e3 * worker["late_s"],
    }
    if gateway:
        result["own_histogram_s"] = between(own_before, own)
    return {**result, "warnings": warnings(result)}


def _until_complete(case: Case, readers: Helper) -> None:
    """Wait until every reader has its whole answer."""
    give_up_s = time.monotonic() + (_LEAD + 1) * TAU_S + _END_S
    while readers.ask("count")["least"] < case.tokens:
        if time.monotonic() > give_up_s:
            return  # the results say how many are incomplete
        time.sleep(0.2)
    time.sleep(0.2)


def warnings(result: dict[str, Any]) -> list[str]:
    """What casts doubt on the results of one run."""
    found = []
    clients = result["client_cpu_share"] + result["worker_cpu_share"]
    if clients > BUSY:
        found.append(
            f"the readers and workers used {clients:.0%} of their core and may be the bottleneck"
        )
    if result["client_timer_late_p99_ms"] > _TIMER_LATE_MS:
        found.append(
            f"the readers' own timer was {result['client_timer_late_p99_ms']:.0f} ms late (p99), "
            "so their machine or they themselves are part of the lateness"
        )
    if result["worker_late_max_ms"] > 1e3 * _LEAD * TAU_S / 2:
        found.append(f"a worker's frame was {result['worker_late_max_ms']:.0f} ms late")
    if result["waited_share"] > CROWDED:
        found.append(
            f"the server waited for its core in {result['waited_share']:.0%} of the time: other "
            "processes used it"
        )
    if result["incomplete"]:
        found.append(f"{result['incomplete']} answers were not complete")
    return found
