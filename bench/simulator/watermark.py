"""The baseline ``fcfs+watermark``: vLLM's own order, and vLLM's own means against preemptions.

With a watermark, vLLM admits a waiting request only if a share of the KV blocks stays free
(``SchedulerConfig.watermark``, 0 by default). Which share is best depends on the load. So a
comparison runs the baseline with each of `SHARES`, and `bench.simulator.results.best_watermark`
keeps the one with the shortest mean TTFT: no operator could choose better.

Names policies; pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

NAME: Final = "fcfs+watermark"
SHARES: Final = (0.01, 0.02, 0.05, 0.1)  # of the KV blocks


def with_share(share: float) -> str:
    """The policy with this watermark, such as ``fcfs+watermark:0.02``."""
    return f"{NAME}:{share:g}"


def share_of(policy: str) -> float | None:
    """The watermark in the name of a policy; None if it has none.

    :raises ValueError: naming the policy, if the watermark is no share.
    """
    name, colon, text = policy.partition(":")
    if name != NAME or not colon:
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise ValueError(f"{policy}: a watermark is a share above 0 and below 1, such as 0.02")
    return share


def without_share(policy: str) -> str:
    """The policy without its watermark: ``fcfs+watermark`` whatever the share."""
    return policy if share_of(policy) is None else NAME


def expanded(policies: Iterable[str]) -> tuple[str, ...]:
    """Policies to run: each of `SHARES` in the place of ``fcfs+watermark``."""
    return tuple(
        one
        for policy in policies
        for one in (map(with_share, SHARES) if policy == NAME else (policy,))
    )
