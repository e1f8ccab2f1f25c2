"""Hundreds of switches of the scheduling policy while readers stream: no stream may show them.

    python -m tests.gateway.ops.switches --switches 200 --readers 120

Starts ``pascal serve`` with emulated instances whose KV memory is short, and readers who ask one
question after another. An emulated device writes a text that depends on its length alone, so each
question is asked once before, and every later answer has to be the same.

First all readers ask at once under ``fcfs``, and a minute later under ``slack``. The run prints
what they got before and after; which policy is better depends on the load, so that is no check.
Then everybody asks without a pause, and the policy is switched among all there are, each time
through ``POST /admin/policy``. At the end the counts of ``/metrics`` and of the operations page
have to be the sums of the responses.

Ends with status 0 if everything holds, 1 if something does not.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp

from tests.support.server import ROOT, Server
from workers.policy.settings import POLICY_NAMES

PROFILE = ROOT / "workers" / "emulation" / "profiles" / "h100-qwen32b.toml"
KV_TOKENS = 4096  # of an instance: about nine requests, of thirty that want it
QUESTIONS = 16
TPOT_S = 0.1
PATIENCE_S = 300.0  # guards against a hang
PAUSE_S = (0.2, 0.9)  # between two switches
SAMPLE_S = 1.0
PERIOD_S = 15.0  # of the table
BURST_S = 60.0  # between two of the bursts
BURSTS = 1  # under the first policy
DELTAS = {"response.reasoning_text.delta": 0, "response.output_text.delta": 1}
TERMINAL = ("response.completed", "response.incomplete", "response.failed", "error")

Texts: TypeAlias = tuple[str, str]  # of the thoughts and of the answer


@dataclass(slots=True)
class Ended:
    """One response, as its reader had it. Times are of the monotonic clock."""

    began_s: float  # the first token of the answer
    ttft_s: float
    ended_s: float
    qoe: float
    reasoning_tokens: int
    answer_tokens: int
    preemptions: int


@dataclass(slots=True)
class Outcome:
    """What happened."""

    wrong: list[str] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    samples: list[tuple[float, float, float]] = field(default_factory=list)  # when, queued, dry
    switches: Counter[str] = field(default_factory=Counter)  # by policy
    streams: Counter[str] = field(default_factory=Counter)  # live ones, at each switch
    slowest_s: float = 0.0  # answer to a switch


def question(index: int) -> dict[str, Any]:
    """A body: each question has lengths of its own."""
    return {
        "input": f"Question {index}: what is {137 + 41 * index} + {259 + 17 * index}?",
        "store": False,
        "pacing": {"tpot_s": TPOT_S},
        "forced_lengths": {
            "reasoning_tokens": 80 + 11 * index,
            "answer_tokens": 120 + 9 * index,
        },
    }


class Readers:
    """Readers who ask until `stop`."""

    def __init__(self, http: aiohttp.ClientSession, url: str, outcome: Outcome) -> None:
        self.live = 0  # streams
        self._http, self._url, self._outcome = http, url, outcome
        self._right: dict[int, Texts] = {}
        self._stopping = False
        self._asked = 0
        self._burst = asyncio.Condition()
        self._bursts = True

    async def learn(self) -> None:
        """Ask each question once, before anything is switched."""

        async def ask(index: int) -> None:
            self._right[index] = await self._read(index)

        await asyncio.gather(*(ask(index) for index in range(QUESTIONS)))

    async def run(self, readers: int) -> None:
        """Read until `stop`; return when the last stream has ended."""
        await asyncio.gather(*(self._reader() for _ in range(readers)))

    async def burst(self) -> None:
        """Let all who read nothing ask at once."""
        async with self._burst:
            self._burst.notify_all()

    async def flow(self) -> None:
        """From now on everybody asks when the last answer is read."""
        self._bursts = False
        await self.burst()

    def stop(self) -> None:
        """Start no new response."""
        self._stopping = True

    async def _reader(self) -> None:
        while not self._stopping:
            if self._bursts:
                async with self._burst:
                    await self._burst.wait()
            index, self._asked = self._asked % QUESTIONS, self._asked + 1
            try:
                async with asyncio.timeout(PATIENCE_S):
                    texts = await self._read(index)
            except TimeoutError:
                self._wrong(index, f"no end within {PATIENCE_S:g} s")
            except (aiohttp.ClientError, OSError, TypeError) as error:  # TypeError: it was closed
                self._wrong(index, f"the connection broke: {error!r}")
                await asyncio.sleep(1)
            else:
                if texts != self._right[index]:
                    self._wrong(index, f"another text: {texts!r} instead of {self._right[index]!r}")

    async def _read(self, index: int) -> Texts:
        self.live += 1
        try:
            async with self._http.ws_connect(self._url, max_msg_size=0) as socket:
                return await self._read_one(socket, index)
        finally:
            self.live -= 1

    async def _read_one(self, socket: aiohttp.ClientWebSocketResponse, index: int) -> Texts:
        asked_s, began_s, expected = time.monotonic(), 0.0, 0
        texts = ["", ""]
        await socket.send_json({"type": "response.create", **question(index)})
        while True:
            event = await socket.receive_json()
            type_ = event["type"]
            if (number := event.get("sequence_number")) != expected:
                self._wrong(index, f"event {number} came instead of {expected}")
            expected += 1
            if (place := DELTAS.get(type_)) is not None:
                texts[place] += event["delta"]
                began_s = began_s or (time.monotonic() if place else 0.0)
            elif type_ in TERMINAL:
                break
        response = event.get("response", {})
        if type_ != "response.completed" or response["failovers"]:
            self._wrong(index, f"it ended with {event}")
            return texts[0], texts[1]
        usage, lengths = response["usage"], question(index)["forced_lengths"]
        if usage["output_tokens"] < sum(lengths.values()):
            self._wrong(index, f"only {usage['output_tokens']} tokens of {lengths}")
        reasoning = usage["output_tokens_details"]["reasoning_tokens"]
        self._outcome.ended.append(
            Ended(
                began_s,
                began_s - asked_s,
                time.monotonic(),
                response["qoe"]["qoe"],
                reasoning,
                usage["output_tokens"] - reasoning,
                response["preemptions"],
            )
        )
        return texts[0], texts[1]

    def _wrong(self, index: int, what: str) -> None:
        self._outcome.wrong.append(f"question {index}: {what}")


class Gateway:
    """What is asked of the gateway beside the streams."""

    def __init__(self, http: aiohttp.ClientSession, url: str, outcome: Outcome) -> None:
        self._http, self._url, self._outcome = http, url, outcome

    async def switch(self, policy: str) -> None:
        """Have all instances schedule by this policy, and check that they say so."""
        asked_s = time.monotonic()
        async with self._http.post(f"{self._url}/admin/policy", json={"policy": policy}) as answer:
            described = await answer.json()
        took_s = time.monotonic() - asked_s
        self._outcome.slowest_s = max(self._outcome.slowest_s, took_s)
        self._outcome.switches[policy] += 1
        expected = {"policy": policy, "pending": False, "error": None}
        for one in described["instances"]:
            if {name: one[name] for name in expected} != expected:
                self._outcome.wrong.append(f"the switch to {policy}: {one}")

    async def metrics(self) -> dict[str, float]:
        """All metrics, by name and labels."""
        async with self._http.get(f"{self._url}/metrics") as answer:
            text = await answer.text()
        pairs = re.findall(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in pairs}

    async def totals(self) -> dict[str, Any]:
        """What the operations page counts since the gateway started."""
        async with self._http.ws_connect(f"{self._url}/admin/ops", max_msg_size=0) as socket:
            async with asyncio.timeout(PATIENCE_S):
                while (frame := await socket.receive_json())["type"] != "second":
                    pass
        totals: dict[str, Any] = frame["totals"]
        return totals

    async def sample(self) -> None:
        """Note how many wait, again and again."""
        while True:
            metrics = await self.metrics()
            queued = metrics['pascal_requests_live{state="queued"}']
            self._outcome.samples.append((time.monotonic(), queued, metrics["pascal_readers_dry"]))
            await asyncio.sleep(SAMPLE_S)


async def run(url: str, readers: int, switches: int, seed: int) -> Outcome:
    """Everything, and print what happened."""
    outcome, rng = Outcome(), random.Random(seed)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        gateway = Gateway(http, url, outcome)
        crowd = Readers(http, f"{url}/v1/responses", outcome)
        await gateway.switch("fcfs")
        await crowd.learn()
        reading = asyncio.create_task(crowd.run(readers))
        await asyncio.sleep(1)
        sampling = asyncio.create_task(gateway.sample())
        try:
            for _ in range(BURSTS):
                await crowd.burst()
                await asyncio.sleep(BURST_S)
            at_s = time.monotonic()
            await gateway.switch("slack")
            await crowd.burst()
            await asyncio.sleep(BURST_S)
            await crowd.flow()
            await asyncio.sleep(2)  # until all have asked
            await switch_often(gateway, crowd, outcome, switches, rng)
        finally:
            crowd.stop()
            await crowd.flow()
            await asyncio.wait([reading])
            sampling.cancel()
        reading.result()
        compare(outcome, at_s)
        await check_counts(gateway, outcome)
    least = min(map(int, outcome.streams), default=0)
    if least < readers * 0.8:
        outcome.wrong.append(f"only {least} streams were live at a switch")
    return outcome


async def switch_often(
    gateway: Gateway, crowd: Readers, outcome: Outcome, switches: int, rng: random.Random
) -> None:
    """Switch among all policies, never to the one in force."""
    policy = "slack"
    for number in range(switches):
        policy = rng.choice([name for name in POLICY_NAMES if name != policy])
        outcome.streams[str(crowd.live)] += 1
        await gateway.switch(policy)
        if not (number + 1) % 50:
            done = len(outcome.ended)
            print(f"{number + 1} switches; {done} responses read, {crowd.live} live", flush=True)
        await asyncio.sleep(rng.uniform(*PAUSE_S))


def compare(outcome: Outcome, at_s: float) -> None:
    """Print what readers got before and after the switch at ``at_s``."""
    print("seconds  policy  responses  TTFT p50  TTFT p90  QoE p5  queued  readers who wait")
    periods = int(BURST_S // PERIOD_S)
    for period in range(-BURSTS * periods, periods):
        begin_s = at_s + period * PERIOD_S
        _row(outcome, begin_s, period * PERIOD_S, "fcfs" if period < 0 else "slack")


def _row(outcome: Outcome, begin_s: float, at: float, policy: str) -> None:
    end_s = begin_s + PERIOD_S
    ttfts = [one.ttft_s for one in outcome.ended if begin_s <= one.began_s < end_s]
    qoes = [one.qoe for one in outcome.ended if begin_s <= one.ended_s < end_s]
    samples = [sample[1:] for sample in outcome.samples if begin_s <= sample[0] < end_s]
    queued, dry = (sum(column) / len(samples) for column in zip(*samples, strict=True))
    print(
        f"{at:7.0f}  {policy:6}  {len(ttfts):9}  {quantile(ttfts, 0.5):8.1f}  "
        f"{quantile(ttfts, 0.9):8.1f}  {quantile(qoes, 0.05):6.3f}  {queued:6.0f}  {dry:16.1f}",
        flush=True,
    )


def quantile(values: Sequence[float], share: float) -> float:
    """A quantile; NaN without a value."""
    return sorted(values)[int(len(values) * share)] if values else float("nan")


async def check_counts(gateway: Gateway, outcome: Outcome) -> None:
    """The counts of the gateway have to be the sums of the responses."""
    metrics, totals = await gateway.metrics(), await gateway.totals()
    reasoning = sum(one.reasoning_tokens for one in outcome.ended)
    answers = sum(one.answer_tokens for one in outcome.ended)
    for what, read, metric, page in (
        (
            "responses",
            len(outcome.ended),
            metrics['pascal_responses_total{status="completed"}'],
            totals["responses"]["completed"],
        ),
        (
            "tokens of thoughts",
            reasoning,
            metrics['pascal_tokens_generated_total{kind="reasoning"}'],
            totals["reasoning_tokens"],
        ),
        (
            "tokens of answers",
            answers,
            metrics['pascal_tokens_generated_total{kind="answering"}'],
            totals["answering_tokens"],
        ),
        (
            "preemptions",
            sum(one.preemptions for one in outcome.ended),
            sum(n for name, n in metrics.items() if name.startswith("pascal_preemptions_total{")),
            totals["preempted"],
        ),
    ):
        print(f"{what}: {read} read, {metric:.0f} in /metrics, {page} on the page", flush=True)
        if not read == metric == page:
            outcome.wrong.append(f"{what}: {read} read, {metric} in /metrics, {page} on the page")


def main() -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--readers", type=int, default=120)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="switches-") as folder:
        text = PROFILE.read_text(encoding="utf-8")
        profile = Path(folder) / "short-of-memory.toml"
        profile.write_text(re.sub(r"^tokens = .*$", f"tokens = {KV_TOKENS}", text, flags=re.M))
        settings = {
            "workers.emulate": profile,
            "workers.max_num_seqs": 64,
            "limits.max_requests": 10 * chosen.readers,
            "limits.max_requests_per_user": 10 * chosen.readers,
            "limits.max_readers": 10 * chosen.readers,
            "limits.load": 0,  # more than there is memory for is what policies differ in
        }
        extra = tuple(f"--set={name}={value}" for name, value in settings.items())
        with Server(Path(folder), workers=chosen.workers, extra=extra) as server:
            server.wait_for(lambda: server.metric("pascal_instances") == chosen.workers)
            outcome = asyncio.run(run(server.url, chosen.readers, chosen.switches, chosen.seed))
            errors = [line for line in server.output().splitlines() if '"level":"error"' in line]
            outcome.wrong += errors
    for line in outcome.wrong[:20]:
        print(f"WRONG {line[:400]}")
    least = min(map(int, outcome.streams), default=0)
    print(
        f"{sum(outcome.switches.values())} switches among {len(outcome.switches)} policies, "
        f"at least {least} streams live at each, slowest answer {outcome.slowest_s:.2f} s; "
        f"{len(outcome.ended)} responses whole and right; {len(outcome.wrong)} faults"
    )
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
