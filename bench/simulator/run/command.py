"""``pascal simulate run``: simulates a cluster, to size it and to choose its settings.

Policies, boundary rules, numbers of instances and rates can be lists. Every combination runs under
the same arrivals, and the table shows them side by side. The JSON contains no wall-clock time: the
same command writes the same bytes. No engine is imported before all flags are checked.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

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
from bench.reporting.flag_types import (
    above_0,
    count,
    duration,
    list_of,
    one_of,
    share,
    whole_number,
)
from bench.reporting.outputs import prepare_json, write_json
from bench.reporting.vllm_environment import prepare_environment
from bench.simulator.parallel import in_parallel
from bench.simulator.run.report import config_of, results_of, table_of, title_of
from bench.simulator.run.settings import (
    BOUNDARIES,
    Case,
    CaseRun,
    Load,
    Settings,
    Variant,
    check_policies,
    labels,
    load_of,
    numbers_of,
    runnable,
    variants,
)
from workers.emulation.device import DeviceProfile
from workers.emulation.profile import ProfileError

_FILE_COLUMNS = 160  # width of a file or a pipe: room for the table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal simulate run``."""
    parser.usage = "%(prog)s [flags]"  # a list of all flags would hide the error below it
    _add_load(parser)
    _add_cluster(parser)
    _add_output(parser)


def _add_load(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("load").add_argument
    add("--workload", default=None, metavar="NAME", help="a named workload (default: arena-hard)")
    add("--trace", metavar="FILE", help="a recorded trace instead of a workload")
    add(
        "--trace-format", default="auto", metavar="NAME", help="format of the trace (default: auto)"
    )
    add(
        "--trace-split",
        metavar="NAME",
        help="how to split its outputs into reasoning and answer",
    )
    add(
        "--rate",
        type=list_of(above_0),
        default=(None,),
        metavar="R,...",
        help="requests per second, all instances together; default: the workload's own",
    )
    add(
        "--burstiness",
        type=above_0,
        default=1.0,
        metavar="B",
        help="1: Poisson arrivals; less: bursts (default: 1)",
    )
    add(
        "--warm-up",
        type=duration,
        default=60.0,
        metavar="TIME",
        help="load before the measurement (default: 60s)",
    )
    add(
        "--seconds",
        type=duration,
        default=None,
        metavar="TIME",
        help="length of the measurement (default: 120s)",
    )
    add("--num-requests", type=count, metavar="N", help="measure N requests instead")
    add(
        "--cool-down",
        type=duration,
        default=60.0,
        metavar="TIME",
        help="load after the measurement (default: 60s)",
    )
    add(
        "--seeds",
        type=list_of(whole_number),
        default=(1,),
        metavar="S,...",
        help="seeds of the arrivals (default: 1)",
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("cluster").add_argument
    add(
        "--policy",
        type=list_of(str),
        default=("slack",),
        metavar="NAME,...",
        help="slack, pascal, rr, fcfs, andes, tokenflow; fcfs+watermark: fcfs with the best "
        "watermark of vLLM, or fcfs+watermark:0.02; or oracle: fcfs with memory for all requests "
        "(default: slack)",
    )
    add(
        "--boundary",
        type=list_of(one_of(BOUNDARIES)),
        default=("off",),
        metavar="RULE,...",
        help="whether requests move at the phase boundary: off, always, adaptive, balance "
        "(default: off)",
    )
    add(
        "--instances",
        type=list_of(count),
        default=(1,),
        metavar="N,...",
        help="number of instances (default: 1)",
    )
    add(
        "--profile", default="h100-qwen32b", metavar="NAME|FILE", help="profile of model and device"
    )
    add("--tensor-parallel-size", type=count, metavar="T", help="devices per instance")
    add(
        "--kv-share",
        type=share,
        default=1.0,
        metavar="X",
        help="share of the KV memory to use (default: 1.0)",
    )
    add(
        "--max-num-seqs",
        type=count,
        default=1024,
        metavar="N",
        help="requests in a batch (default: 1024)",
    )
    add(
        "--max-num-batched-tokens",
        type=count,
        default=8192,
        metavar="N",
        help="tokens in a batch (default: 8192)",
    )
    add(
        "--offload",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the KV of preempted requests in host memory",
    )
    add(
        "--set",
        action="append",
        default=[],
        dest="numbers",
        metavar="KEY=VALUE",
        help="a setting of the policy, or placement.KEY for one of placement",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("output").add_argument
    add("--json", type=Path, metavar="FILE", help="write all results there")
    add(
        "--chrome-trace",
        type=Path,
        metavar="FILE",
        help="write a trace for Perfetto; of several cases, one file each",
    )


# ---- settings ----------------------------------------------------------------------------------


def settings_of(args: argparse.Namespace) -> Settings:
    """Settings that all cases share.

    :raises BenchmarkError: if flags contradict each other.
    """
    if args.workload is not None and args.trace is not None:
        raise BenchmarkError("--workload and --trace exclude each other")
    if args.seconds is not None and args.num_requests is not None:
        raise BenchmarkError("--seconds and --num-requests exclude each other")
    if args.seconds == 0:
        raise BenchmarkError("--seconds: must be above 0")
    if args.trace is not None and not Path(args.trace).exists():
        raise BenchmarkError(f"--trace {args.trace}: no such file")
    policy_numbers, placement = numbers_of(args.numbers)
    check_policies(args.policy)
    return Settings(
        source=args.trace or args.workload or "arena-hard",
        trace_format=args.trace_format,
        trace_split=args.trace_split,
        burstiness=args.burstiness,
        profile=args.profile,
        tensor_parallel_size=args.tensor_parallel_size,
        kv_share=args.kv_share,
        max_num_seqs=args.max_num_seqs,
        max_num_batched_tokens=args.max_num_batched_tokens,
        offload=args.offload,
        warm_up_s=args.warm_up,
        seconds=120.0 if args.seconds is None else args.seconds,
        num_requests=args.num_requests,
        cool_down_s=args.cool_down,
        policy_numbers=policy_numbers,
        placement=placement,
    )


# ---- running ------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Simulate and print the results; :return: the exit status."""
    console = wide_console(columns=_FILE_COLUMNS)
    try:
        settings = settings_of(args)
        device = settings.device()
        chosen = variants(
            {
                "policy": args.policy,
                "boundary": args.boundary,
                "instances": args.instances,
                "rate": args.rate,
            }
        )
        _check(settings, chosen)
        cases = [Case(variant, seed) for seed in args.seeds for variant in runnable(chosen)]
        loads = _loads(settings, device, cases)
        traces = _traces(args.chrome_trace, labels(runnable(chosen)), cases)
        prepare_json(args.json, keep=False)
    except (BenchmarkError, ProfileError) as error:
        return give_up(REFUSED, error)
    try:
        runs = _simulate(settings, cases, traces)
    except BenchmarkError as error:
        return give_up(FAILED, error)
    except KeyboardInterrupt:
        return interrupted()
    results = results_of(chosen, runs)
    console.print(table_of(title_of(settings, device, loads), results))
    write_json(
        args.json,
        {
            "config": config_of(settings, args.seeds, device),
            "results": results,
        },
    )
    return OK


def _check(settings: Settings, chosen: Sequence[Variant]) -> None:
    """Check settings that are valid one by one.

    :raises BenchmarkError: if they contradict each other or the device.
    """
    device = settings.device()
    if settings.longest(device) < 2 * device.kv.block_size:
        raise BenchmarkError(
            f"--kv-share {settings.kv_share:g}: leaves {settings.kv_blocks(device)} KV blocks of "
            f"{device.kv.blocks}, too few for any request"
        )
    if settings.max_num_batched_tokens < settings.max_num_seqs:
        raise BenchmarkError(
            f"--max-num-batched-tokens {settings.max_num_batched_tokens}: must not be below "
            f"--max-num-seqs {settings.max_num_seqs}, which may all need a token in one step"
        )
    if not settings.offload and any(variant.boundary != "off" for variant in chosen):
        raise BenchmarkError(
            "--no-offload: requests cannot move without offload; use --boundary off"
        )


def _loads(settings: Settings, device: DeviceProfile, cases: Sequence[Case]) -> list[Load]:
    """The load of each seed and rate, once, so that errors appear before anything runs."""
    workload = settings.workload()
    distinct = {(case.variant.rate, case.seed): case for case in cases}
    return [load_of(settings, workload, device, case) for case in distinct.values()]


def _traces(
    path: Path | None, names: Mapping[Variant, str], cases: Sequence[Case]
) -> list[Path | None]:
    """A file for each case.

    :raises BenchmarkError: if one cannot be written.
    """
    if path is None:
        return [None] * len(cases)
    files: list[Path | None] = []
    for case in cases:
        name = re.sub(r"[^\w.]+", "-", f"{names[case.variant]}, seed {case.seed}")
        file = path if len(cases) == 1 else path.with_name(f"{path.stem}-{name}{path.suffix}")
        try:
            file.open("a").close()
        except OSError as error:
            raise BenchmarkError(f"--chrome-trace {file}: {error.strerror}") from error
        files.append(file)
    return files


def _simulate(
    settings: Settings, cases: Sequence[Case], traces: Sequence[Path | None]
) -> list[CaseRun]:
    prepare_environment()
    work = [
        (index, case, settings, trace)
        for index, (case, trace) in enumerate(zip(cases, traces, strict=True))
    ]
    errors = Console(stderr=True)
    with CaseProgress(errors, "virtual time", len(cases), transient=True) as progress:
        runs = list(in_parallel(_run_case, work, progress.show))
    return sorted(runs, key=lambda run: cases.index(run.case))


def _run_case(index: int, case: Case, settings: Settings, trace: Path | None) -> CaseRun:
    """Simulate a case in a child process, which is the only one to import an engine."""
    from bench.simulator.run.case import simulate_case

    return simulate_case(index, case, settings, trace)
