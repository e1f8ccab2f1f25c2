"""``pascal simulate validate``: the same traces on engines and in the simulator.

It has two parts. ``--only`` runs one of them:

    engines    a real CPU engine with the embedded model, against a profile that is fitted in the
               same run to the step log of other traces. On the processor's clock a second engine
               on the same core runs those, and shows the speed of the core
               (`bench.validation.machine_speed`)
    emulated   an emulated instance in real time, against the same profile in virtual time

`bench.validation.regimes` defines the comparison and its metrics.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from bench.policies.engine_clock import CLOCKS, ClockName, Share
from bench.policies.real_engines import SETTINGS
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
from bench.reporting.outputs import prepare_file, prepare_json, write_json
from bench.reporting.vllm_environment import prepare_environment
from bench.validation.calibrate import QUIET, fit_json, fit_table, profile_of, provenance, to_toml
from bench.validation.machine_speed import WINDOW_S, agreement, fit_slowed, slowdowns
from bench.validation.regimes import JUDGED, THRESHOLDS, Comparison, compare, mape, trace_of
from bench.validation.replay_engine import ReplayEngine
from bench.validation.runs import BATCHED_TOKENS, Advance, Extent, replay_rounds, simulated
from bench.validation.step_fit import fit_steps
from workers.emulation.profile import ProfileError, load_profile
from workers.policy.settings import BASELINES, POLICIES
from workers.step_log import LoggedStep

PARTS = ("engines", "emulated")
_PROBE_S = 0.3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal simulate validate``."""
    add = parser.add_argument
    add("--only", choices=PARTS, action="append", metavar="PART", help=", ".join(PARTS))
    add(
        "--policy",
        choices=POLICIES + BASELINES,
        default="fcfs",
        help="policy inside the engines (default: fcfs, vLLM's own)",
    )
    add(
        "--rounds",
        type=int,
        default=6,
        help="replays of each trace on the real engine",
    )
    add("--requests", type=int, default=30, help="requests of each trace")
    add(
        "--seed",
        type=int,
        default=1,
        help="seed of the compared traces",
    )
    add(
        "--clock",
        choices=CLOCKS,
        default="processor",
        help="clock of the real engine (default: processor, which other processes do not disturb)",
    )
    add("--emulate", default="h100-qwen32b", metavar="PROFILE", help="profile of the emulated part")
    add("--profile-output", type=Path, metavar="FILE.toml", help="write the fitted profile")
    add("--check", action="store_true", help="exit with 1 if an error is too large")
    add(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write the results; without FILE to standard output, and all other output to errors",
    )


def run(args: argparse.Namespace) -> int:
    """Run the parts; :return: the exit status."""
    prepare_environment()
    to_stdout = args.json == "-"
    path = Path(args.json) if args.json and not to_stdout else None
    console = wide_console(stderr=to_stdout)
    parts = list(dict.fromkeys(args.only or PARTS))
    try:
        extent = _extent(args, path)
    except (BenchmarkError, ProfileError) as error:
        return give_up(REFUSED, error)
    results: dict[str, Any] = {}
    try:
        for part in parts:
            result = (
                _engines(extent, args, console) if part == "engines" else _emulated(extent, console)
            )
            if not results or part == "engines":
                results["mape"] = result["mape"]
            results[part] = result
    except BenchmarkError as error:
        return give_up(FAILED, error)
    except KeyboardInterrupt:
        return interrupted()
    write_json(path, results)
    if to_stdout:
        print(json.dumps(results, indent=1))
    missed = [f"{part} {key}" for part in parts for key in _missed(results[part]["mape"])]
    if args.check and missed:
        return give_up(FAILED, f"too far apart: {', '.join(missed)}")
    return OK


def _extent(args: argparse.Namespace, path: Path | None) -> Extent:
    for flag, least in (("rounds", 1), ("requests", 2)):
        if getattr(args, flag) < least:
            raise BenchmarkError(f"--{flag}: at least {least}, not {getattr(args, flag)}")
    prepare_json(path, keep=False)
    output = args.profile_output
    if output is not None and output.suffix != ".toml":
        raise BenchmarkError(f"--profile-output {output}: the name of a profile ends in .toml")
    if output is not None and "engines" not in (args.only or PARTS):
        raise BenchmarkError("--profile-output: only the engines' part fits a profile")
    prepare_file("--profile-output", output)
    load_profile(args.emulate)
    return Extent(
        policy=args.policy,
        rounds=args.rounds,
        requests=args.requests,
        seed=args.seed,
        profile=args.emulate,
    )


def _missed(errors: dict[str, float]) -> list[str]:
    return [key for key, most in THRESHOLDS.items() if errors[key] > most]


# ---- real engines


def _engines(extent: Extent, args: argparse.Namespace, console: Console) -> dict[str, Any]:
    core, had = _quietest_core()
    clock: ClockName = args.clock
    console.print(f"core {core}, which a busy thread gets for {had:.0%} of the time; {clock} time")
    settings = msgspec.structs.replace(
        SETTINGS, kv_offload_gib=0.0, max_num_seqs=64, max_num_batched_tokens=BATCHED_TOKENS
    )
    with _progress(console, "real engine", extent.rounds * len(JUDGED)) as step:
        measured_rounds = replay_rounds(extent, settings, clock, core, step)
    # On the wall's clock engines take turns, so the speed of one says nothing about the other.
    tracked = clock == "processor"
    if tracked:
        fit = fit_slowed(measured_rounds.spells, clock)
    else:
        fit = fit_steps([step for spell in measured_rounds.spells for step in spell], clock)
    header = measured_rounds.replays[JUDGED[0].name][0].header
    profile = profile_of(fit, header)
    comparisons = []
    for trace in measured_rounds.traces:
        replays = measured_rounds.replays[trace.name]
        steady = simulated(trace, profile, settings)
        slowed = [
            simulated(trace, profile, settings, slowdowns(fit.times, spell, clock))
            for spell in measured_rounds.calibration[trace.name]
            if tracked
        ]
        comparisons.append(
            compare(
                trace.name,
                [replay.requests for replay in replays],
                slowed or [steady],
                steady,
                _share([step for replay in replays for step in replay.steps]),
            )
        )
    console.print(fit_table(fit))
    correlation = None
    if tracked:
        did = [replay.steps for replays in measured_rounds.replays.values() for replay in replays]
        correlation = agreement(fit.times, zip(did, measured_rounds.spells, strict=True))
        if correlation is not None:
            console.print(
                f"correlation of both engines' slowdowns in windows of {WINDOW_S:g} s: "
                f"{correlation:.2f}"
            )
    title = f"A real CPU engine against the simulator, {extent.policy}, {clock} time"
    console.print(comparison_table(title, comparisons))
    _say_noise(console, clock, comparisons)
    if args.profile_output is not None:
        args.profile_output.write_text(to_toml(profile, provenance(header, fit, clock)), "utf-8")
    return {
        "clock": clock,
        "policy": extent.policy,
        "mape": mape(comparisons),
        "fit": fit_json(fit),
        "speed_correlation": correlation,
        "traces": [one.to_json() for one in comparisons],
    }


# ---- emulated instances


def _emulated(extent: Extent, console: Console) -> dict[str, Any]:
    profile = load_profile(extent.profile)
    settings = msgspec.structs.replace(
        SETTINGS,
        emulate=extent.profile,
        kv_offload_gib=0.0,
        kv_blocks=profile.kv.blocks,
        block_size=profile.kv.block_size,
        max_num_seqs=64,
        max_num_batched_tokens=BATCHED_TOKENS,
    )
    comparisons = []
    with (
        _progress(console, "emulated instance", len(JUDGED)) as advance,
        ReplayEngine(settings, "wall", None) as engine,
    ):
        for regime in JUDGED:
            trace = trace_of(
                regime,
                profile.step,
                requests=extent.requests,
                policy=extent.policy,
                block_size=profile.kv.block_size,
                kv_blocks=profile.kv.blocks - 1,
                seed=extent.seed,
            )
            replay = engine.replay(trace)
            advance(trace.name)
            virtual = simulated(trace, profile, settings)
            comparisons.append(
                compare(trace.name, [replay.requests], [virtual], virtual, replay.share)
            )
    title = (
        f"An emulated instance in real time against virtual time, {extent.profile}, {extent.policy}"
    )
    console.print(comparison_table(title, comparisons))
    return {
        "profile": extent.profile,
        "policy": extent.policy,
        "mape": mape(comparisons),
        "traces": [one.to_json() for one in comparisons],
    }


# ---- for people


@contextmanager
def _progress(console: Console, what: str, total: int) -> Iterator[Advance]:
    with CaseProgress(console, what, total) as progress:
        done = 0

        def advance(name: str) -> None:
            nonlocal done
            done += 1
            progress.finished(name, done, total)

        yield advance


def comparison_table(title: str, comparisons: Sequence[Comparison]) -> Table:
    """One row per trace, and one for all."""
    table = Table(title=title)
    table.add_column("trace")
    errors = ("e2e", "mean e2e", "mean TTFT", "mean TPOT", "e2e, steady", "by chance")
    for column in ("requests", *errors, "preemptions", "simulated", "processor"):
        table.add_column(column, justify="right")
    for one in comparisons:
        table.add_row(
            one.name,
            str(one.requests),
            f"{one.e2e:.2%}",
            f"{one.e2e_mean:+.2%}",
            f"{one.ttft_mean:+.2%}",
            f"{one.tpot:+.2%}",
            f"{one.e2e_steady:.2%}",
            "-" if one.chance is None else f"{one.chance:.2%}",
            f"{one.preemptions[0]:.1f}",
            f"{one.preemptions[1]:.1f}",
            f"{one.share.had:.0%}",
        )
    whole = mape(comparisons)
    table.add_section()
    count = sum(one.requests for one in comparisons)
    errors_of_all = (f"{whole[key]:.2%}" for key in ("e2e", "e2e_mean", "ttft_mean", "tpot"))
    steady = sum(one.e2e_steady * one.requests for one in comparisons) / count
    table.add_row("MAPE", str(count), *errors_of_all, f"{steady:.2%}")
    return table


def _say_noise(console: Console, clock: ClockName, comparisons: Sequence[Comparison]) -> None:
    least = min(one.share.had for one in comparisons)
    if least >= QUIET:
        return
    if clock == "wall":
        console.print(
            f"This machine is busy: the engine's thread had a processor for only {least:.0%} of "
            "the time. The results say more about the machine; use --clock processor."
        )
    else:
        console.print(
            f"Other processes use this machine: the engine's thread had a processor for "
            f"{least:.0%} of the time. The processor's clock does not count the rest."
        )


def _share(steps: Sequence[LoggedStep]) -> Share:
    return Share(sum(step.wall_s for step in steps), sum(step.processor_s for step in steps))


def _quietest_core() -> tuple[int, float]:
    """The core on which a busy thread gets the largest share of the time, and that share."""
    before = os.sched_getaffinity(0)
    shares = {}
    try:
        for core in before:
            os.sched_setaffinity(0, {core})
            began_s, processor_s = time.monotonic(), time.thread_time()
            while time.monotonic() - began_s < _PROBE_S:
                pass
            shares[core] = Share(time.monotonic() - began_s, time.thread_time() - processor_s).had
    finally:
        os.sched_setaffinity(0, before)
    return max(shares.items(), key=lambda core: core[1])
