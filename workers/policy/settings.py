"""The numbers of the scheduling policies, each with its reason. Pure."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# What they do: `workers.policy.decide`.
POLICIES = ("fcfs", "rr", "pascal", "slack")
BASELINES = ("andes", "tokenflow")  # others' rules, to compare with


def check_policy(policy: str) -> None:
    """Check the name of a policy. ``module:function`` is looked up when the engine first decides.

    :raises ValueError: for a policy that does not exist.
    """
    known = POLICIES + BASELINES
    if policy not in known and not is_plugin(policy):
        raise ValueError(f"unknown scheduling policy {policy!r}; known: {', '.join(known)}")


def is_plugin(policy: str) -> bool:
    """Whether this names a function of another module: ``module:function``."""
    module, _, function = policy.partition(":")
    return function.isidentifier() and all(part.isidentifier() for part in module.split("."))


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """Every number that a policy uses. :raises ValueError: naming the one that is wrong."""

    policy: str = "slack"

    # The paper's figures. At 30 ms a token a quantum is 15 s: long beside the 0.1 s that it takes
    # to recompute what a preempted request has lost.
    quantum_tokens: int = 500
    demotion_tokens: int = 5000  # only in `pascal`: reasoning this long goes to the low queue

    # Slack, less the time to resume, below which a reader is in danger. Some tens of engine steps:
    # time for a preemption, a recompute and the steps in which others were admitted before.
    low_water_s: float = 2.0
    # Slack at which the danger is over. From there a reader lives for high - low seconds without
    # the engine, some dozens of times the cost of resuming, so that each swap pays.
    high_water_s: float = 12.0
    # Only in `slack`: an answering request that waits for so long goes before everything else,
    # whatever its slack: its reader may have paused, but it must end. Reasoning that waits for so
    # long counts as fresh, however many quanta it has had. Well above the high-water mark, so that
    # it does not decide as long as the water marks can.
    starvation_s: float = 30.0
    # What a request that has become urgent gets at least once it runs: less would not be worth the
    # resume.
    min_run_tokens: int = 64

    # Only in `andes`: how far it looks ahead. As long as a quantum takes at 30 ms a token.
    qoe_horizon_s: float = 15.0
    # Only in `andes`: it preempts nobody while its decisions have preempted those that are there so
    # often, in the mean. Else it would for every new request, which holds fewest blocks.
    preemptions_per_request: float = 1.0

    # Preemptions in one step for waiting requests after the first, which may take what it needs.
    # Each costs a recompute, which the steps of all the others then wait for.
    max_preemptions_per_step: int = 8
    # Only in `slack`: after so many for the sake of others a request keeps its memory, which bounds
    # its recomputes. Above what the quanta of 15000 reasoning tokens, or an answer's water marks,
    # come to.
    max_preemptions: int = 32

    # A decision is followed by the next one so much later, but at the latest after a quarter of the
    # low-water mark, and at once when a request arrives or comes to its answer, or a reader reads
    # otherwise. In between ranks are those of the last decision: a reader may come into danger,
    # which the low-water mark bears, a quantum may end some tokens later, and if memory gets short
    # vLLM itself evicts who ranks last.
    review_s: float = 0.25
    # With many requests it is later: a decision takes some 10 us for each, and so never more than a
    # few hundredths of the time.
    review_s_per_request: float = 0.0004
    # For the same reason "at once" is not before so much for each request has passed: for fewer
    # than 125 requests no longer than an engine step.
    review_least_s_per_request: float = 0.0002

    # What recomputing one token of lost KV takes. 0.08 ms for a 32B model on an H100 (paper,
    # prefill); a small model on a CPU core is about as fast.
    resume_s_per_token: float = 0.0001
    # A reader of whom nothing is known, as in a stock vLLM server: the paper's targets.
    tau_s: float = 0.1
    ttfat_s: float = 0.25

    def __post_init__(self) -> None:
        check_policy(self.policy)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not least <= value < math.inf:
                raise ValueError(f"{name} must be at least {least}, not {value!r}")
        if self.high_water_s <= self.low_water_s:
            raise ValueError(
                f"high_water_s must be above low_water_s ({self.low_water_s}), "
                f"not {self.high_water_s!r}: without the distance requests would thrash"
            )

    @classmethod
    def of(cls, config: Mapping[str, Any], foreign: Iterable[str] = ()) -> PolicySettings:
        """Settings from a configuration table.

        :param foreign: keys of the table that belong to others.
        :raises ValueError: naming an unknown key, or a key with a wrong value.
        """
        kinds = {f.name: f.type for f in dataclasses.fields(cls)}
        own = {key: value for key, value in config.items() if key not in set(foreign)}
        for key, value in own.items():
            if key not in kinds:
                close = difflib.get_close_matches(key, kinds, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(kinds)}"
                raise ValueError(f"unknown key {key!r}; {hint}")
            allowed = {"int": int, "float": (int, float), "str": str}[str(kinds[key])]
            if not isinstance(value, allowed) or isinstance(value, bool):  # type: ignore[arg-type]
                raise ValueError(f"{key} must be of type {kinds[key]}, not {value!r}")
        return cls(**own)


_LEAST: dict[str, float] = {
    "quantum_tokens": 1,
    "demotion_tokens": 1,
    "low_water_s": 0,
    "high_water_s": 0,
    "starvation_s": 0,
    "min_run_tokens": 0,
    "qoe_horizon_s": 0,
    "preemptions_per_request": 0,
    "max_preemptions_per_step": 1,
    "max_preemptions": 0,
    "review_s": 0,
    "review_s_per_request": 0,
    "review_least_s_per_request": 0,
    "resume_s_per_token": 0,
    "tau_s": 0.001,
    "ttfat_s": 0,
}
