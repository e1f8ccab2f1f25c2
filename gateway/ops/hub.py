"""One task that looks at the gateway for all viewers, in slices, and only while there are some.

Four times a second: what happened to requests, and the state of the instances. Once a second:
readers, figures, and a row of the history. A *keyframe* has all requests; a viewer gets one when it
comes, every ten seconds, and after frames were dropped because it did not take them. What a viewer
asked for (`gateway.ops.asks`) goes to it alone.

When the last viewer has left, the history goes on for half an hour, once a second, so that a page
that is loaded again has no gap. Before the first viewer nothing happens at all.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import orjson
import structlog

from gateway.ops.asks import Asked
from gateway.ops.figures import WINDOW, Figures
from gateway.ops.history import COLUMNS, LENGTH, History
from gateway.ops.instances import INSTANCE_COLUMNS, Instances
from gateway.ops.life import MARKS
from gateway.ops.watch import Watch
from gateway.ops.worst import FIGURES, Worst
from gateway.policy.placement import BOUNDARY_RULES
from gateway.response.tally import LIVE_STATES
from gateway.scrape import own_version
from gateway.service import ResponseService

log = structlog.get_logger()

PROTOCOL = 1
MOST_VIEWERS = 16
TICK_S = 0.25
_TICKS = 4  # a second
_AGAIN_S = 1.0  # after a fault
_KEYFRAME_TICKS = 40
_LINGER_TICKS = LENGTH * _TICKS
_SLICE_S = 0.001  # of work before other work of the loop comes first
_REST_S = 0.004  # that it gets at least
_PART_ROWS = 500  # of a keyframe
_PART_SECONDS = 60  # of the history
_NOTES = 50


class Viewer(Protocol):
    """Somebody who looks."""

    behind: bool  # frames were dropped
    asked: Asked

    @property
    def full(self) -> bool:
        """Whether it takes nothing now."""

    def send(self, data: bytes) -> None:
        """Send a JSON object."""


class Hub:
    """Looks at one gateway, and sends what it sees to all viewers.

    :param policies: the scheduling policies to which a viewer can switch; none if it cannot.
    """

    def __init__(self, service: ResponseService, policies: Sequence[str] = ()) -> None:
        self.history = History()
        self.notes: deque[dict[str, Any]] = deque(maxlen=_NOTES)
        self.viewers: list[Viewer] = []
        self.longest_s = 0.0  # CPU time without a rest so far, for measurements
        self._service = service
        self._policies = list(policies)
        self._new: list[Viewer] = []
        self._watch: Watch | None = None
        self._task: asyncio.Task[None] | None = None
        self._begun_s = 0.0
        self._chosen = self._choices
        cluster = service.cluster
        cluster.policies.on_set = cluster.boundary.on_set = self._note_choices

    def add(self, viewer: Viewer) -> None:
        """Send a new viewer what there is, and go on."""
        self._new.append(viewer)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def note(self, text: str) -> None:
        """Mark on the charts of all viewers what an operator did."""
        self._note(text, choice=True)

    def remove(self, viewer: Viewer) -> None:
        """Send it nothing more."""
        for viewers in (self._new, self.viewers):
            if viewer in viewers:
                viewers.remove(viewer)

    @property
    def room(self) -> bool:
        """Whether one more may look."""
        return len(self.viewers) + len(self._new) < MOST_VIEWERS

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    # ---- the task -----------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
                return
            except Exception:  # one request or viewer caused it; the others look on
                log.exception("operations_failed")
            finally:
                self._watch = None
            await asyncio.sleep(_AGAIN_S)
            self._new, self.viewers = [*self.viewers, *self._new], []

    async def _look(self) -> None:
        service = self._service
        watch = self._watch = Watch(service.tally)
        instances = Instances(service.cluster, service.maintenance, watch)
        figures = Figures(service.tally, service.metrics, service.cluster)
        tick, alone = 0, 0
        due_s = time.monotonic()
        while alone < _LINGER_TICKS:
            now = time.monotonic()
            self._begun_s = time.thread_time()
            looked_at = bool(self.viewers or self._new)
            alone = 0 if looked_at else alone + 1
            if not tick % _TICKS:
                await self._sliced(watch.look_thoroughly(now))
                self._tell(watch.events)
                await self._rest()
                self._send({"type": "readers", "rows": watch.readers})
                await self._rest()
                row, totals = figures.take(watch)
                await self._rest()
                at = self.history.add(round(time.time(), 1), row)
                self._send({"type": "second", "row": at, "totals": totals, **self._chosen})
            elif looked_at:
                await self._sliced(watch.look(now))
                self._tell(watch.events)
            await self._rest()
            if looked_at:
                for note in instances.news():
                    self._note(note)
                self._send({"type": "instances", "rows": instances.rows()})
                await self._rest()
                if not tick % _KEYFRAME_TICKS:
                    await self._keyframe(watch, now, self.viewers)
                await self._answer(watch, now, everything=not tick % _TICKS)
                await self._welcome(watch, instances, now)
            self.longest_s = max(self.longest_s, time.thread_time() - self._begun_s)
            tick += 1
            due_s = max(due_s + TICK_S, time.monotonic())
            await asyncio.sleep(due_s - time.monotonic())

    async def _sliced(self, work: Iterator[object]) -> None:
        """Work until it is done; let other work of the loop go first every millisecond."""
        for _ in work:
            await self._rest()

    async def _rest(self) -> None:
        worked_s = time.thread_time() - self._begun_s
        if worked_s >= _SLICE_S:
            self.longest_s = max(self.longest_s, worked_s)
            await asyncio.sleep(_REST_S)
            self._begun_s = time.thread_time()

    @property
    def _choices(self) -> dict[str, str]:
        """What operators can choose, as it is: the scheduling policy, and the boundary rule."""
        cluster = self._service.cluster
        policy = cluster.policies.wanted or self._service.config.workers.policy
        return {"policy": policy, "boundary": cluster.boundary.rule}

    def _note_choices(self) -> None:
        """Mark what an operator has chosen now."""
        before, self._chosen = self._chosen, self._choices
        for name, choice in self._chosen.items():
            if choice != before[name]:
                self._note(f"{name} {before[name]} → {choice}", choice=True)

    def _note(self, text: str, *, choice: bool = False) -> None:
        """Tell what happened, to be marked on the charts.

        :param choice: an operator chose it, so that the time before is worth comparing.
        """
        self.notes.append({"at": round(time.time(), 1), "text": text, "choice": choice})
        self._send({"type": "note", **self.notes[-1]})

    def _tell(self, events: list[list[Any]]) -> None:
        if events:
            self._send({"type": "events", "rows": events})

    async def _answer(self, watch: Watch, now: float, *, everything: bool) -> None:
        """Send each viewer what it asked for.

        :param everything: also what is looked at once a second.
        """
        able = [viewer for viewer in self.viewers if not viewer.full and not viewer.behind]
        for viewer in able:
            frame = viewer.asked.request(watch, now)
            if frame is not None:
                self._send(frame, [viewer])
                await self._rest()
        for figure in FIGURES:
            asking = [
                viewer
                for viewer in able
                if viewer.asked.figure == figure and (everything or viewer.asked.fresh)
            ]
            if not asking:
                continue
            worst = Worst(figure)
            await self._sliced(worst.look(list(watch.seen.values()), now))
            for viewer in asking:
                viewer.asked.fresh = False
            self._send({"type": "worst", "figure": figure, "rows": worst.rows}, asking)
            await self._rest()

    async def _keyframe(self, watch: Watch, now: float, viewers: list[Viewer]) -> None:
        """Send all requests. Viewers who take nothing now get the next one."""
        first = True
        for rows in watch.rows(now, _PART_ROWS):
            frame = {"type": "requests", "first": first, "rows": rows}
            self._send(frame, list(viewers))
            first = False
            await self._rest()

    async def _welcome(self, watch: Watch, instances: Instances, now: float) -> None:
        """Send new viewers everything, and those who missed something a keyframe."""
        late = [viewer for viewer in self.viewers if viewer.behind and not viewer.full]
        for viewer in late:
            viewer.behind = False
        if late:
            await self._keyframe(watch, now, late)
        new, self._new = self._new, []
        if not new:
            return
        self._send(self._hello(), new)
        self.viewers += new  # at once: one that leaves before it has everything is removed, too
        for part in self.history.parts(_PART_SECONDS):
            await self._rest()
            self._send({"type": "history", "rows": part}, new)
        self._send({"type": "instances", "rows": instances.rows()}, new)
        await self._keyframe(watch, now, new)

    def _hello(self) -> dict[str, Any]:
        config = self._service.config
        pacing = config.pacing
        return {
            "type": "hello",
            "protocol": PROTOCOL,
            "version": own_version(),
            "model": config.served_model_name,
            **self._choices,
            "policies": self._policies,
            "demo": config.server.demo != "",
            "boundaries": BOUNDARY_RULES if self._policies else (),
            "now": round(time.time(), 1),
            "targets": {
                "ttft_s": pacing.ttft_s,
                "ttfat_s": pacing.ttfat_s,
                "tpot_s": pacing.tpot_s,
                "slo_qoe": pacing.slo_qoe,
            },
            "states": LIVE_STATES,
            "marks": MARKS,
            "figures": FIGURES,
            "columns": COLUMNS,
            "instance_columns": INSTANCE_COLUMNS,
            "history_s": LENGTH,
            "window_s": WINDOW,
            "notes": list(self.notes),
        }

    def _send(self, frame: dict[str, Any], viewers: list[Viewer] | None = None) -> None:
        """Send to all, or to these; drop it for those who take nothing now."""
        chosen = self.viewers if viewers is None else viewers
        if not chosen:
            return
        data = orjson.dumps(frame)
        for viewer in list(chosen):
            if viewer.full:
                viewer.behind = True
            elif not viewer.behind or viewers is not None:
                viewer.send(data)
