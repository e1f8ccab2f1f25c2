"""Made-up outcomes of cases, for tests of what is told of them."""

from __future__ import annotations

from collections.abc import Sequence

from bench.paper.outcome import PaperRun
from bench.simulator.results import PolicyRun
from bench.simulator.spans import Split
from bench.simulator.timeline import RequestMetrics


def outcome(
    policy: str,
    ttfts_s: Sequence[float],
    *,
    seed: int = 1,
    reasoning_tokens: int = 100,
    violations: int = 0,
    ttfat_s: float = 0.1,
    throughput: float = 100.0,
    generation_tpot_s: float = 0.03,
    transfers_s: Sequence[float] = (),
) -> PaperRun:
    """One request for each TTFT, the first of which violate their SLO."""
    requests = [
        RequestMetrics(
            reasoning_tokens=reasoning_tokens,
            ttft_s=ttft_s,
            ttfat_s=ttfat_s,
            tpot_s=0.1,
            e2e_s=ttft_s + 10,
            qoe=0.5 if index < violations else 1.0,
            qoe_ttfat=1.0,
            underruns=0,
            underruns_by_preemption=0,
            preemptions=1,
            resumes=1,
        )
        for index, ttft_s in enumerate(ttfts_s)
    ]
    run = PolicyRun(
        policy=policy,
        seed=seed,
        requests=requests,
        throughput_tok_s=throughput,
        generated_tokens=1,
        recomputed_tokens=2,
        reloaded_tokens=3,
        kv_peak_blocks=40,
    )
    return PaperRun(
        run=run,
        reasoning=[Split(ttft_s - 1.0, 0.75, 0.25) for ttft_s in ttfts_s],
        answering=[Split(5.0, 0.0, 1.0) for _ in ttfts_s],
        generation_tpot_s=[generation_tpot_s for _ in ttfts_s],
        transfers_s=list(transfers_s),
        migrations=len(transfers_s),
    )
