"""``pascal bench scheduler``: benefit and cost of the policies inside an engine.

It has five parts. ``--only`` selects some of them:

    virtual    eight modelled H100 instances in virtual time, several seeds
    cpu        real vLLM engines on this machine, taking turns
    stock      a stock vLLM API server with the plugin and without
    overhead   the scheduler's CPU time per step against vLLM's own
    offload    recomputed tokens with KV offload and without

The JSON is written after every part, so that an interrupted run keeps the finished parts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.reporting.console import (
    FAILED,
    OK,
    REFUSED,
    CaseProgress,
    give_up,
    interrupted,
    wide_console,
)
from bench.reporting.errors import BenchmarkError
from bench.reporting.outputs import prepare_folder, prepare_json, write_json
from bench.reporting.vllm_environment import prepare_environment
from bench.simulator.results import ORACLE, PolicyRun, best_watermark, policy_result, policy_title

PARTS = ("virtual", "cpu", "stock", "overhead", "offload")
_QUICK_PARTS = ("virtual", "cpu", "overhead", "offload")  # `--quick --only stock` runs that one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal bench scheduler``."""
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="shorter runs without the stock server; 10 minutes on two cores",
    )
    add("--json", type=Path, metavar="FILE", help="write the results there")
    add("--plots", type=Path, metavar="DIR", help="write plots of virtual, cpu and overhead there")
    add("--only", choices=PARTS, action="append", metavar="PART", help=", ".join(PARTS))


def run(args: argparse.Namespace) -> int:
    """Run the parts; :return: the exit status."""
    try:
        results = prepare_json(args.json, keep=bool(args.only))
        prepare_folder(args.plots)
    except BenchmarkError as error:
        return give_up(REFUSED, error)
    console = wide_console()
    parts: dict[str, Callable[[bool, Console], dict[str, Any]]] = {
        "virtual": _virtual,
        "cpu": _cpu,
        "stock": _stock,
        "overhead": _overhead,
        "offload": _offload,
    }
    for part in dict.fromkeys(args.only or (_QUICK_PARTS if args.quick else PARTS)):
        try:
            results |= parts[part](args.quick, console)
        except BenchmarkError as error:
            return give_up(FAILED, f"{part}: {error}")
        except KeyboardInterrupt:
            return interrupted("the results of finished parts are kept")
        write_json(args.json, results)
        if args.plots is not None:
            _plot(part, results, args.plots)
    return OK


def _virtual(quick: bool, console: Console) -> dict[str, Any]:
    prepare_environment()
    from bench.policies import virtual

    load = virtual.QUICK if quick else virtual.FULL
    with CaseProgress(console, "virtual time") as progress:

        def done(run: PolicyRun, count: int, total: int) -> None:
            progress.finished(f"{run.policy}, seed {run.seed}", count, total)

        runs = virtual.run_virtual(load, done)
    results = by_policy(runs)
    console.print(policy_table("Eight modelled H100 instances in virtual time", results))
    return {"virtual": results}


def _cpu(quick: bool, console: Console) -> dict[str, Any]:
    from bench.policies import real_engines

    with console.status("real CPU engines") as status:
        runs = real_engines.run_engines(
            quick, lambda text: status.update(f"real CPU engines: {text}")
        )
    results = by_policy(runs)
    console.print(policy_table("Real vLLM engines on this machine's cores", results))
    return {"cpu": results}


def _stock(quick: bool, console: Console) -> dict[str, Any]:
    from bench.policies import stock_server

    with console.status("stock server") as status:
        results = stock_server.run_stock(quick, lambda text: status.update(f"stock server: {text}"))
    table = Table(title="Stock vLLM API server under KV pressure, TTFT")
    for column in ("scheduler", "mean s", "p99 s", "failed"):
        table.add_column(column, justify="right")
    for side in ("default", "slack"):
        ttft, failed = results[side]["ttft_s"], results[side]["failed"]
        table.add_row(side, f"{ttft['mean']:.2f}", f"{ttft['p99']:.2f}", str(failed))
    console.print(table)
    return {"stock": results}


def _overhead(quick: bool, console: Console) -> dict[str, Any]:
    prepare_environment()
    from bench.policies import scheduler_overhead

    with console.status("the scheduler's CPU time"):
        results: dict[str, Any] = scheduler_overhead.measure_overhead(quick)
    console.print(scheduler_overhead.table(results))
    return {"overhead": results}


def _offload(quick: bool, console: Console) -> dict[str, Any]:
    from bench.policies import kv_offload

    with console.status("KV offload against recompute"):
        results = kv_offload.measure()
    ratio = results["offload_extra_tokens_ratio"]
    console.print(f"recomputed tokens with offload / without: {ratio:.3f}")
    return {"offload": results, "offload_extra_tokens_ratio": ratio}


def by_policy(runs: Sequence[PolicyRun]) -> dict[str, Any]:
    """The result of each policy, in the order of the first run of each.

    ``fcfs+watermark`` has its best share alone.
    """
    policies = dict.fromkeys(run.policy for run in runs)
    by_label: dict[tuple[str, ...], list[PolicyRun]] = {
        (policy,): [run for run in runs if run.policy == policy] for policy in policies
    }
    oracle = by_label.get((ORACLE,), [])
    return {
        policy: policy_result(of_policy, oracle)
        for (policy,), of_policy in best_watermark(by_label).items()
    }


def policy_table(title: str, results: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per policy."""
    bins = sorted(
        {first for result in results.values() for first in result["ttft_p99_to_oracle"]},
        key=lambda text: int(text.partition("-")[0]),
    )
    table = Table(
        title=title, caption="p99 N-M: p99 TTFT with N to M reasoning tokens / the oracle's"
    )
    columns = ("policy", "TTFT mean s", "p99 s", *(f"p99 {b}" for b in bins))
    for column in (*columns, "TTFAT p99 s", "SLO viol. %", "tok/s", "preempt/req", "underruns"):
        table.add_column(column, justify="right")
    for policy, result in results.items():
        ttft = result["ttft_s"]
        ratios = result["ttft_p99_to_oracle"]
        table.add_row(
            policy_title(policy, result),
            f"{ttft['mean']:.2f}",
            f"{ttft['p99']:.1f}",
            *(f"{ratios[b]:.2f}" if b in ratios else "" for b in bins),
            f"{result['ttfat_s']['p99']:.2f}",
            f"{100 * result['slo_violations']:.2f}",
            f"{result['throughput_tok_s']:.0f}",
            f"{result['preemptions_per_request']:.2f}",
            f"{result['underruns_by_preemption']:.1f}",
        )
    return table


def _plot(part: str, results: Mapping[str, Any], folder: Path) -> None:
    from bench.policies import plots

    if part in ("virtual", "cpu"):
        titles = {
            "virtual": "Eight H100 instances in virtual time, half of their KV memory",
            "cpu": "Real vLLM engines on CPU cores, half of the KV memory that is asked for",
        }
        plots.plot_policies(results[part], titles[part], folder / f"scheduler-{part}.png")
    elif part == "overhead":
        ratios = {case: results[part][case] for case in ("running_32", "running_256", "backlog")}
        plots.plot_overhead(ratios, folder / "scheduler-overhead.png")
