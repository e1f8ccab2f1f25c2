"""Report of ``pascal simulate run``: results by variant, a table, and the configuration.

Pure. Names are those of `bench.simulator.results`.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.table import Table

from bench.simulator.results import (
    ORACLE,
    best_watermark,
    cluster_result,
    policy_title,
    tasks_result,
)
from bench.simulator.run.settings import CaseRun, Load, Settings, Variant, labels, runnable
from bench.simulator.watermark import NAME as WATERMARK
from workers.emulation.device import DeviceProfile


def results_of(chosen: Sequence[Variant], runs: Sequence[CaseRun]) -> dict[str, Any]:
    """Results of each variant by its label; names as in `bench.simulator.results`."""
    names = labels(list(chosen))
    results: dict[str, Any] = {}
    for variant in chosen:
        by_label: dict[tuple[str, ...], list[CaseRun]] = {
            (one.policy,): [run for run in runs if run.case.variant == one]
            for one in runnable([variant])
        }
        (of_variant,) = best_watermark(by_label).values()
        oracle = [
            run.run
            for run in runs
            if run.case.variant.policy == ORACLE
            and run.case.variant.instances == variant.instances
            and run.case.variant.rate == variant.rate
        ]
        results[names[variant]] = {
            **dataclasses.asdict(variant),
            **cluster_result(of_variant, oracle),
            "failed": sum(run.refused for run in of_variant),
            "busy_share": statistics.fmean(run.busy_share for run in of_variant),
            "kv_peak_share": max(run.kv_peak_share for run in of_variant),
            "ended_s": max(run.ended_s for run in of_variant),
            **tasks_result([run.tasks for run in of_variant]),
        }
    return results


def table_of(title: str, results: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per variant."""
    table = Table(title=title, caption="means over seeds; TTFT: to the first answering token")
    table.add_column("")
    columns = ("TTFT mean s", "p99 s", "TTFAT p99 s", "TPOT p99 ms", "e2e p99 s", "SLO viol. %")
    for column in (*columns, "tok/s", "preempt/req", "moves", "busy %", "KV peak %", "refused"):
        table.add_column(column, justify="right")
    agents = any("tasks" in result for result in results.values())
    if agents:
        for column in ("tasks", "task e2e mean s", "p99 s"):
            table.add_column(column, justify="right")
    for label, result in results.items():
        tpot_s = result["tpot_s"]["p99"]
        shown = label if result["policy"] != WATERMARK else policy_title(label, result)
        table.add_row(
            shown,
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
            *_task_cells(result, agents),
        )
    return table


def _task_cells(result: Mapping[str, Any], agents: bool) -> list[str]:
    if not agents:
        return []
    e2e_s = result.get("task_e2e_s")
    if e2e_s is None:
        return ["0", "", ""]
    return [str(result["tasks"]), f"{e2e_s['mean']:.1f}", f"{e2e_s['p99']:.1f}"]


def title_of(settings: Settings, device: DeviceProfile, loads: Sequence[Load]) -> str:
    """Title of the table: load, device and number of requests."""
    tokens = (settings.kv_blocks(device) - 1) * device.kv.block_size
    counts = [load.measured for load in loads]
    requests = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"
    return (
        f"{settings.source} on {settings.profile}: {tokens} KV tokens per instance, "
        f"{requests} measured requests per run"
    )


def config_of(settings: Settings, seeds: Sequence[int], device: DeviceProfile) -> dict[str, Any]:
    """Settings of the results, with all numbers of the device: its profile may change later."""
    return {
        **dataclasses.asdict(settings),
        "seeds": list(seeds),
        "device": msgspec.to_builtins(device),
    }
