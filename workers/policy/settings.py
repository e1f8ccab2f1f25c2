"""The numbers of the scheduling policies, each with its description and its reason. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec

from workers import checked
from workers.checked import SettingError, about

# What each decides: `workers.policy.decide`.
PolicyName = Literal["fcfs", "rr", "pascal", "slack", "andes", "tokenflow"]
POLICY_NAMES = get_args(PolicyName)
BASELINES = ("andes", "tokenflow")  # rules of other papers, to compare with
POLICIES = tuple(name for name in POLICY_NAMES if name not in BASELINES)


def check_policy(policy: str) -> None:
    """Check the name of a policy. ``module:function`` is looked up when the engine first decides.

    :raises ValueError: for a policy that does not exist.
    """
    if policy not in POLICY_NAMES and not is_plugin(policy):
        raise ValueError(f"unknown scheduling policy {policy!r}; known: {', '.join(POLICY_NAMES)}")


def is_plugin(policy: str) -> bool:
    """Whether this names a function of another module: ``module:function``."""
    module, _, function = policy.partition(":")
    return function.isidentifier() and all(part.isidentifier() for part in module.split("."))


class PolicySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The numbers of all policies, each with its reason.

    :raises ValueError: a value is not allowed; the message names it.
    """

    policy: str = "slack"

    # The numbers of the paper. At 30 ms a token a quantum is 15 s: long beside the 0.1 s that it
    # takes to recompute what a preempted request has lost.
    quantum_tokens: Annotated[
        int, about("rr, pascal, slack: tokens that a request generates in its turn.", ge=1)
    ] = 500
    demotion_tokens: Annotated[
        int, about("pascal: reasoning tokens after which a request joins the low queue.", ge=1)
    ] = 5000

    # Some tens of engine steps: time for a preemption, a recompute, and the steps to which others
    # were admitted before.
    low_water_s: Annotated[
        float,
        about("slack: a reader with less slack, less the time to resume, is in danger.", ge=0),
    ] = 2.0
    # From this mark a reader lives for high - low seconds without the engine. That is some dozens
    # of times the cost of resuming, so that each swap pays.
    high_water_s: Annotated[
        float, about("slack: a reader with this much slack is out of danger.", ge=0)
    ] = 12.0
    # The reader of such a request may have paused, but the request must end. Well above the
    # high-water mark, so that age does not decide while the water marks can.
    starvation_s: Annotated[
        float,
        about(
            "slack: an answering request that has waited for longer goes first, whatever its "
            "slack; a reasoning one counts as fresh, however many quanta it has had.",
            ge=0,
        ),
    ] = 30.0
    # Fewer tokens would not be worth the resume.
    min_run_tokens: Annotated[
        int, about("Least tokens of a request that became urgent, once it runs.", ge=0)
    ] = 64

    # Nobody reads a call, and an agent waits for its end.
    calls: Annotated[
        Literal["calling", "answering"],
        about(
            "How a request that writes a call is scheduled: as reasoning, or, to compare with, as "
            "an answer whose tokens a person reads."
        ),
    ] = "calling"
    # Most models end there, at most after white space, or call again. To lose the memory between
    # the call and its end would cost an agent a resume.
    after_call_tokens: Annotated[
        int, about("Answering tokens after a call that are scheduled as part of it.", ge=0)
    ] = 8

    # As long as a quantum takes at 30 ms a token.
    qoe_horizon_s: Annotated[float, about("andes: how far it looks ahead.", ge=0)] = 15.0
    # Without a limit it would preempt for every new request, which holds the fewest blocks.
    preemptions_per_request: Annotated[
        float,
        about("andes: preemptions per present request, on average, from which it stops.", ge=0),
    ] = 1.0

    # Each costs a recompute, which delays the steps of all other requests.
    max_preemptions_per_step: Annotated[
        int,
        about(
            "Most preemptions in one step for waiting requests after the first, which may take "
            "what it needs.",
            ge=1,
        ),
    ] = 8
    # Bounds the recomputes of one request. More than the quanta of 15000 reasoning tokens, or the
    # water marks of an answer, come to.
    max_preemptions: Annotated[
        int,
        about("slack: preemptions for others after which a request keeps its memory.", ge=0),
    ] = 32

    # A decision also follows when a request arrives or comes to its answer, or a reader changes
    # pace, and at the latest after a quarter of the low-water mark. Between two decisions ranks do
    # not change: a reader may come into danger, which the low-water mark allows for; a quantum may
    # end some tokens late; and if memory runs short, vLLM itself evicts the request with the lowest
    # rank.
    review_s: Annotated[float, about("Time between two decisions.", ge=0)] = 0.25
    # A decision takes about 10 us for each request, so that it costs at most a few percent of the
    # time.
    review_s_per_request: Annotated[
        float, about("The same with many requests, for each of them.", ge=0)
    ] = 0.0004
    # For the same reason. With fewer than 125 requests this is no longer than an engine step.
    review_least_s_per_request: Annotated[
        float, about("Least time between two decisions, for each request.", ge=0)
    ] = 0.0002

    # 0.08 ms for a 32B model on an H100 (paper, prefill); a small model on a CPU core is about as
    # fast.
    resume_s_per_token: Annotated[float, about("Time to recompute one token of lost KV.", ge=0)] = (
        0.0001
    )
    # The paper's targets, for readers of whom nothing is known, as in a stock vLLM server.
    tau_s: Annotated[float, about("Time per answering token that a reader expects.", ge=0.001)] = (
        0.1
    )
    ttfat_s: Annotated[
        float, about("Time from the phase boundary to the first answering token.", ge=0)
    ] = 0.25

    def __post_init__(self) -> None:
        """Check it, however it was made."""
        check_policy(self.policy)
        checked.check(self)
        if self.high_water_s <= self.low_water_s:
            raise SettingError(
                f"high_water_s: {self.high_water_s} must be above low_water_s "
                f"({self.low_water_s}); without a distance, requests would thrash"
            )

    @classmethod
    def of(cls, config: Mapping[str, Any], foreign: Iterable[str] = ()) -> PolicySettings:
        """Make settings of a configuration table.

        :param foreign: keys of the table that are settings of something else.
        :raises SettingError: naming an unknown key, or a key with a wrong value.
        """
        others = frozenset(foreign)
        return checked.convert({k: v for k, v in config.items() if k not in others}, cls)
