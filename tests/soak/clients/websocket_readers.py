"""Readers of the WebSocket API: they read, stall, pause, stop, vanish, come back, or forget."""

from __future__ import annotations

import asyncio
import random

from websockets.exceptions import ConnectionClosed

from tests.soak.clients.stage import SEND_TIMEOUT_S, Socket, Stage, body
from tests.soak.clients.stream import Refused, Stream, Violation


async def reads_to_the_end(stage: Stage, rng: random.Random) -> None:
    """Reads several responses on a socket, one after the other."""
    async with Socket(stage) as socket:
        for _ in range(rng.randint(1, 3)):
            stream = await socket.create(body(rng, long=rng.random() < 0.1))
            await socket.follow(stream)


async def stalls(stage: Stage, rng: random.Random) -> None:
    """Stops reading for seconds, then reads on; the server may have closed meanwhile."""
    async with Socket(stage, slow=True) as socket:
        stream = await socket.create(body(rng, long=rng.random() < 0.5))
        try:
            await asyncio.sleep(rng.uniform(2, 20))
            await socket.follow(stream)
            return
        except ConnectionClosed:
            stage.tally.cut += 1
    await comes_back(stage, stream)


async def comes_back(stage: Stage, stream: Stream) -> None:
    """Resume on a new connection; the gateway may answer that events have expired."""
    async with Socket(stage) as socket:
        await socket.resume(stream)
        try:
            await socket.follow(stream)
        except Refused as refused:
            if refused.code not in ("events_expired", "response_not_found"):
                raise


async def stalls_forever(stage: Stage, rng: random.Random) -> None:
    """Asks for more than all buffers hold and never reads; the gateway must close."""
    async with stage.one_of(stage.stalled):
        async with Socket(stage) as first:
            stream = await first.create(body(rng, long=True))
            await first.follow(stream)
        async with Socket(stage, slow=True) as socket:
            for number in range(60):
                await socket.send(
                    type="response.resume",
                    response_id=stream.response_id,
                    starting_after=stream.last - 200,
                    stream_id=f"again-{number}",
                )
            await asyncio.sleep(2 * SEND_TIMEOUT_S + 10)
            held = socket.held()
            socket.vanish(reset=rng.random() < 0.5)
    if held:
        raise Violation("a reader that has stalled for long is still connected")
    stage.tally.cut += 1


async def pauses(stage: Stage, rng: random.Random) -> None:
    """Pauses and reads on; one in four leaves it to the server to end the pause."""
    async with Socket(stage) as socket:
        request = body(rng) | {"pacing": {"tpot_s": 0.05}}
        stream = await socket.create(request)
        await socket.follow(stream, upto=rng.randint(1, 40))
        name = stream.response_id
        if stream.ended:
            return
        await socket.send(type="response.pacing.update", response_id=name, paused=True)
        forever = rng.random() < 0.25
        if not forever:
            await asyncio.sleep(rng.uniform(0.1, 4))
            await socket.send(
                type="response.pacing.update", response_id=name, paused=False, tpot_s=0.01
            )
        await socket.follow(stream)


async def stops(stage: Stage, rng: random.Random) -> None:
    """Cancels at once, in the middle, or after the end."""
    async with Socket(stage) as socket:
        stream = await socket.create(body(rng))
        await socket.follow(stream, upto=rng.choice([0, 5, 30, 1000]))
        over = stream.ended
        await socket.send(type="response.cancel", response_id=stream.response_id)
        await socket.follow(stream)
        assert stream.final is not None
        if over or stream.final["status"] == "completed":
            return
        if stream.final["incomplete_details"]["reason"] != "cancelled":
            raise Violation(f"{stream.response_id}: cancelled, and ended {stream.final['status']}")


async def vanishes_and_comes_back(stage: Stage, rng: random.Random) -> None:
    """Drops the connection up to three times, with a reset or not; must get every event once."""
    async with Socket(stage) as socket:
        stream = await socket.create(body(rng, long=rng.random() < 0.2))
        await socket.follow(stream, upto=rng.randint(0, 60))
        socket.vanish(reset=rng.random() < 0.5)
    for _ in range(rng.randint(0, 2)):
        await asyncio.sleep(rng.uniform(0, 1.5))
        if stream.ended:
            return
        async with Socket(stage) as socket:
            await socket.resume(stream)
            await socket.follow(stream, upto=rng.randint(0, 40))
            socket.vanish(reset=rng.random() < 0.5)
    if not stream.ended and rng.random() < 0.8:
        await comes_back(stage, stream)


async def comes_back_late(stage: Stage, rng: random.Random) -> None:
    """Comes back after more events than are kept; must get `events_expired`, or all of them."""
    async with Socket(stage) as socket:
        stream = await socket.create(body(rng, long=True))
        socket.vanish(reset=rng.random() < 0.5)
    await asyncio.sleep(rng.uniform(8, 20))
    await comes_back(stage, stream)


async def resumes_wrongly(stage: Stage, rng: random.Random) -> None:
    """Asks for events and responses that do not exist."""
    async with Socket(stage) as socket:
        stream = await socket.create(body(rng))
        await socket.follow(stream)
        wrong = (
            {"starting_after": stream.last + rng.randint(1, 10**6)},
            {"starting_after": stream.last},
            {"starting_after": -2},
            {"response_id": "resp_" + "0" * 32},
            {"starting_after": "soon"},
            {"response_id": None},
        )
        for fields in wrong:
            event = {"type": "response.resume", "response_id": stream.response_id, **fields}
            await socket.send(**event)
            await socket.error()


async def has_many_lanes(stage: Stage, rng: random.Random) -> None:
    """Runs several streams at once, some with a second request waiting, some cancelled."""
    async with Socket(stage) as socket:
        lanes: dict[str, list[Stream]] = {}
        left = 0
        for number in range(rng.randint(3, 8)):
            name = f"lane-{number}"
            lanes[name] = []
            for _ in range(rng.randint(1, 2)):
                await socket.send(type="response.create", stream_id=name, **body(rng))
                left += 1
        while left:
            event = await socket.event()
            name = event["stream_id"]
            if event["type"] == "error":
                stage.tally.refused[event["error"]["code"]] += 1
                left -= 1
                continue
            if event["type"] == "response.created":
                if lanes[name] and not lanes[name][-1].ended:
                    raise Violation(f"{name}: a response began before the one ahead had ended")
                lanes[name].append(Stream(stage.tally))
            stream = lanes[name][-1]
            stream.feed(event)
            left -= stream.ended
            if not stream.ended and rng.random() < 0.003:
                await socket.send(type="response.cancel", response_id=stream.response_id)


async def goes_on_and_forgets(stage: Stage, rng: random.Random) -> None:
    """Holds a conversation of stored responses; deletes most, leaves the others to retention."""
    async with Socket(stage) as socket:
        names: list[str] = []
        for _ in range(rng.randint(1, 3)):
            request = body(rng, store=True)
            if names:
                request["previous_response_id"] = names[-1]
            stream = await socket.create(request)
            await socket.follow(stream)
            names.append(stream.response_id)
    if rng.random() < 0.2:
        return
    for name in names:
        status, _ = await stage.call("DELETE", f"/v1/responses/{name}")
        again, _ = await stage.call("GET", f"/v1/responses/{name}")
        if (status, again) != (200, 404):
            raise Violation(f"{name}: DELETE says {status}, GET after it {again}")


async def deletes_while_it_runs(stage: Stage, rng: random.Random) -> None:
    """The stream must end all the same."""
    async with Socket(stage) as socket:
        stream = await socket.create(body(rng, store=True))
        await socket.follow(stream, upto=rng.randint(0, 30))
        await stage.call("DELETE", f"/v1/responses/{stream.response_id}")
        await socket.follow(stream)
    await asyncio.sleep(0.5)
    status, _ = await stage.call("GET", f"/v1/responses/{stream.response_id}")
    if status != 404:
        raise Violation(f"{stream.response_id}: deleted while it ran, and GET says {status}")


async def says_nothing(stage: Stage, rng: random.Random) -> None:
    """Stays idle; half of them start a response and disconnect before it begins."""
    async with Socket(stage) as socket:
        await asyncio.sleep(rng.uniform(0, 15))
        if rng.random() < 0.5:
            await socket.send(type="response.create", **body(rng))
        socket.vanish(reset=rng.random() < 0.5)
