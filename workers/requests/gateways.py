"""The gateways that are connected to this worker, and what waits to be sent to each.

Decides which gateway gets which message, and whether the engine must wait for one that reads too
slowly. Pure but for the callbacks that it is given; knows no socket and no request.

Each gateway gets the tokens of its own requests. The state of the engine goes to all: with every
step to those that have a part in it, and now and then to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import structlog

from workers.messages import Heartbeat, Load, OtherLoads, PolicySet, StepStats, TokenRun
from workers.requests.outbox import Outbox, Reply

_log = structlog.get_logger()

MOST_GATEWAYS = 64  # connected at a time
_HIGH_WATER = 8192  # the engine pauses when more tokens than this wait for a gateway
_LOW_WATER = 2048  # it continues when at most this many wait
_PATIENCE_S = 2.0  # that the engine waits for one gateway while others are connected
_STATS_S = 0.1  # between two states of the engine, to a gateway that has no part in its steps


class Gateway:
    """One connected gateway.

    :param wake: called after messages were put into the outbox.
    :param cut: called if the connection must end, with the reason.
    """

    def __init__(self, name: str, wake: Callable[[], None], cut: Callable[[str], None]) -> None:
        self.name = name
        self.outbox = Outbox()
        self.load = Load()  # as it told
        self.wake = wake
        self.cut = cut
        self.behind_since_s: float | None = None  # None: it reads fast enough
        self.told_s = float("-inf")  # when it last got the state of the engine

    def send(self, message: Reply) -> None:
        """Send it an answer."""
        self.outbox.put(message)
        self.wake()


class Gateways:
    """All connected gateways.

    :param pause: begin no step until ``resume``.
    :param clock: seconds on any clock.
    """

    def __init__(
        self, pause: Callable[[], None], resume: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        self._pause = pause
        self._resume = resume
        self._clock = clock
        self._all: dict[str, Gateway] = {}  # by name
        self._paused = False

    def __iter__(self) -> Iterator[Gateway]:
        return iter(list(self._all.values()))

    def __contains__(self, gateway: Gateway) -> bool:
        return self._all.get(gateway.name) is gateway

    def add(self, gateway: Gateway) -> None:
        """A gateway has connected. One of the same name must have been removed before."""
        self._all[gateway.name] = gateway
        if len(self._all) > 1:
            self._tell_loads(self)

    def remove(self, gateway: Gateway) -> None:
        """A gateway has gone, and the load that it told with it."""
        if gateway in self:
            del self._all[gateway.name]
            self._tell_loads(self)
            self._throttle()

    # ---- what is sent

    def step(self, runs: Mapping[Gateway, list[TokenRun]], stats: StepStats) -> None:
        """Send the tokens of a step to the gateways that they belong to."""
        now = self._clock()
        alone = len(self._all) == 1
        for gateway in self._all.values():
            own = runs.get(gateway)
            if own is None and not alone and now - gateway.told_s < _STATS_S:
                continue
            gateway.told_s = now
            gateway.outbox.put_step(tuple(own or ()), stats)
            gateway.wake()
        self._throttle()

    def heartbeat(self, gateway: Gateway, message: Heartbeat) -> None:
        """Send a heartbeat, and lose patience with a gateway that the engine waits for."""
        gateway.told_s = now = self._clock()
        gateway.outbox.put_heartbeat(message)
        gateway.wake()
        since_s = gateway.behind_since_s
        if since_s is not None and len(self._all) > 1 and now - since_s > _PATIENCE_S:
            _log.warning("gateway_cut", gateway=gateway.name, tokens=gateway.outbox.tokens)
            gateway.cut(f"{gateway.outbox.tokens} tokens were not read for {_PATIENCE_S:g} s")

    def prefixes(self, changes: dict[int, int]) -> None:
        """Tell all which prefixes the engine holds now."""
        if changes:
            for gateway in self._all.values():
                gateway.outbox.put_prefixes(changes)
                gateway.wake()

    def policy_set(self, message: PolicySet, asked: Gateway) -> None:
        """Tell all that the policy has changed; only the one that asked, that it has not."""
        for gateway in self._all.values():
            if message.error is None or gateway is asked:
                gateway.send(message)

    def told(self, gateway: Gateway, load: Load) -> None:
        """A gateway told its load: pass it on to the others."""
        gateway.load = load
        self._tell_loads(other for other in self if other is not gateway)

    def _tell_loads(self, gateways: Iterable[Gateway]) -> None:
        for gateway in gateways:
            load, others = Load(), 0
            for other in self._all.values():
                if other is not gateway:
                    load, others = load.plus(other.load), others + 1
            gateway.outbox.put_loads(OtherLoads(gateways=others, load=load))
            gateway.wake()

    # ---- whether the engine waits

    def drained(self) -> None:
        """A gateway took messages out of its outbox: resume the engine if few tokens wait."""
        self._throttle()

    def _throttle(self) -> None:
        for gateway in self._all.values():
            tokens = gateway.outbox.tokens
            if tokens > _HIGH_WATER and gateway.behind_since_s is None:
                gateway.behind_since_s = self._clock()
            elif tokens <= _LOW_WATER:
                gateway.behind_since_s = None
        behind = any(gateway.behind_since_s is not None for gateway in self._all.values())
        if behind != self._paused:
            self._paused = behind
            if behind:
                self._pause()
            else:
                self._resume()
