"""Loads and cases of the reproduction. Each case is one run.

Pure except for seeded random numbers. The paper does not publish its arrival rates. Here, a load is
a *utilisation*: the share of the KV memory that requests would hold on average if none ever waited.
`sustained` derives the rate from it, from the lengths and from the device's step times. So a load
means the same for every workload, memory size and number of instances.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from bench.simulator.defaults import INSTANCES, LONGEST, PROFILE
from bench.simulator.load import Extent, SteadyLoad
from bench.simulator.results import ORACLE
from bench.simulator.watermark import NAME as WATERMARK
from bench.simulator.watermark import expanded
from bench.workloads.lengths import LengthSource
from bench.workloads.named import named
from workers.emulation.profile import load_profile

# Near 0.9, memory is short at times but readers can still be fed: the regime in which policies
# differ. `sustained` computes the rates; docs/results/reproduction.md lists them.
LOADS = {"low": 0.5, "medium": 0.75, "high": 0.87}
WORKLOADS = ("alpacaeval", "arena-hard")
# Policies of the evaluation and the boundary rule of each: the paper's rules, and for `slack` the
# default of `pascal serve`. Of ``fcfs+watermark`` only the best share enters the results.
POLICIES = {
    ORACLE: "off",
    "fcfs": "off",
    **dict.fromkeys(expanded((WATERMARK,)), "off"),
    "rr": "off",
    "pascal": "adaptive_paper",
    "slack": "balance",
}
_DRAWN = 20_000  # requests in a mean of lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run: everything that determines its outcome except the code."""

    workload: str
    rate: float  # requests per second, all instances together
    policy: str
    boundary: str  # of `bench.simulator.defaults.RULES`
    seed: int
    instances: int
    kv_blocks: int  # of an instance; the oracle has its own, see `bench.simulator.case`
    extent: Extent
    token_s: float | None  # of the requests that are there at the beginning; None: none are
    longest: int = LONGEST  # tokens; longer requests are left out
    numbers: tuple[tuple[str, float], ...] = ()  # settings of the policy that are not defaults

    @property
    def load(self) -> SteadyLoad:
        """The requests that arrive."""
        return SteadyLoad(
            workload=self.workload,
            rate=self.rate,
            extent=self.extent,
            token_s=self.token_s,
            longest=self.longest,
        )

    @property
    def text(self) -> str:
        """Name of the case on the terminal."""
        numbers = "".join(f" {name}={value:g}" for name, value in self.numbers)
        plural = "s" if self.instances > 1 else ""
        cluster = f"{self.instances} instance{plural}, {self.rate:g}/s"
        return (
            f"{self.workload}, {cluster}, {self.policy} {self.boundary}{numbers}, seed {self.seed}"
        )


@dataclass(frozen=True, slots=True)
class Sustained:
    """The load that keeps memory at some utilisation."""

    rate: float  # requests per second, all instances together
    token_s: float  # seconds per token of one request


def sustained(workload: str, utilisation: float, instances: int, kv_blocks: int) -> Sustained:
    """The rate that keeps this share of the KV memory in use if no request waits."""
    profile = load_profile(PROFILE)
    output, held = _means(workload)
    kv_tokens = utilisation * kv_blocks * profile.kv.block_size  # of an instance
    running = kv_tokens * output / held  # Little's law, twice
    token_s = profile.step.seconds(1, 0, 0, 0) + profile.step.per_request_s * (running - 1)
    token_s += profile.step.per_kv_token_s * kv_tokens
    return Sustained(round(instances * kv_tokens / (held * token_s), 2), round(token_s, 4))


def cases_of(
    workload: str,
    load: Sustained,
    extent: Extent,
    seed: int,
    *,
    kv_share: float = 1.0,
    instances: int = INSTANCES,
) -> dict[str, Case]:
    """The policies of the evaluation under the same arrivals."""
    return {
        policy: Case(
            workload=workload,
            rate=load.rate,
            policy=policy,
            boundary=boundary,
            seed=seed,
            instances=instances,
            kv_blocks=blocks(kv_share),
            extent=extent,
            token_s=load.token_s,
        )
        for policy, boundary in POLICIES.items()
    }


def blocks(share: float) -> int:
    """Number of KV blocks in a share of the device's memory."""
    return int(load_profile(PROFILE).kv.blocks * share)


@cache
def _means(workload: str) -> tuple[float, float]:
    """Mean output tokens of a request, and mean KV tokens that it holds, summed over its steps."""
    lengths: LengthSource = named(workload).lengths
    rng = random.Random(f"means of {workload}")
    output = held = 0.0
    for _ in range(_DRAWN):
        drawn = lengths.draw(rng)
        tokens = drawn.reasoning + drawn.answer
        output += tokens
        held += tokens * (drawn.prompt + tokens / 2)
    return output / _DRAWN, held / _DRAWN
