"""What ``pascal simulate run`` tells: figures by variant, a table, and what they are figures of.

Pure. Names are those of `bench.simulator.results`.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.table import Table

from bench.simulator.results import ORACLE, cluster_result
from bench.simulator.run.settings import CaseRun, Load, Settings, Variant, labels
from workers.emulation.device import DeviceProfile


def results_of(chosen: Sequence[Variant], runs: Sequence[CaseRun]) -> dict[str, Any]:
    """Each variant's figures by its label; names as in `bench.simulator.results`."""
    names = labels(list(chosen))
    results: dict[str, Any] = {}
    for variant in chosen:
        mine = [run for run in runs if run.case.variant == variant]
        oracle = [
            run.run
            for run in runs
            if run.case.variant.policy == ORACLE
            and run.case.variant.instances == variant.instances
            and run.case.variant.rate == variant.rate
        ]
        results[names[variant]] = {
            **dataclasses.asdict(variant),
            **cluster_result(mine, oracle),
            "failed": sum(run.refused for run in mine),
            "busy_share": statistics.fmean(run.busy_share for run in mine),
            "kv_peak_share": max(run.kv_peak_share for run in mine),
            "ended_s": max(run.ended_s for run in mine),
        }
    return results


def table_of(title: str, results: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per variant."""
    table = Table(title=title, caption="means over seeds; TTFT is to the first answering token")
    table.add_column("")
    columns = ("TTFT mean s", "p99 s", "TTFAT p99 s", "TPOT p99 ms", "e2e p99 s", "SLO viol. %")
    for column in (*columns, "tok/s", "preempt/req", "moves", "busy %", "KV peak %", "refused"):
        table.add_column(column, justify="right")
    for label, result in results.items():
        tpot_s = result["tpot_s"]["p99"]
        table.add_row(
            label,
            f"{result['ttft_s']['mean']:.2f}",
            f"{result['ttft_s']['p99']:.1f}",
            f"{result['ttfat_s']['p99']:.2f}",
            "" if tpot_s is None else f"{1e3 * tpot_s:.0f}",
            f"{result['e2e_s']['p99']:.1f}",
            f"{100 * result['slo_violations']:.2f}",
            f"{result['throughput_tok_s']:.0f}",
            f"{result['preemptions_per_request']:.2f}",
            f"{result['migrations']:.0f}",
            f"{100 * result['busy_share']:.0f}",
            f"{100 * result['kv_peak_share']:.0f}",
            str(result["failed"]),
        )
    return table


def title_of(settings: Settings, device: DeviceProfile, loads: Sequence[Load]) -> str:
    """What was simulated."""
    tokens = (settings.kv_blocks(device) - 1) * device.kv.block_size
    counts = [load.measured for load in loads]
    requests = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"
    return (
        f"{settings.source} on {settings.profile}: {tokens} KV tokens an instance, "
        f"{requests} requests measured in a run"
    )


def config_of(settings: Settings, seeds: Sequence[int], device: DeviceProfile) -> dict[str, Any]:
    """What the figures are of; the device's numbers in full, since a profile's file may change."""
    return {
        **dataclasses.asdict(settings),
        "seeds": list(seeds),
        "device": msgspec.to_builtins(device),
    }
