"""``pascal simulate run``: its errors, its results, and that these are reproducible."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.simulator.results import ORACLE
from bench.simulator.run import command
from bench.simulator.run.settings import (
    Case,
    CaseRun,
    Settings,
    Variant,
    labels,
    load_of,
    numbers_of,
    variants,
)
from bench.workloads.named import named
from pascal import main

LITTLE = "--rate 3 --seconds 4 --warm-up 2 --cool-down 0 --kv-share 0.1"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--policy slak",
            "--policy: unknown policy 'slak'; there are fcfs, rr,",
        ),
        ("--policy fcfs,no.such:policy", "--policy 'no.such:policy': No module named 'no'"),
        ("--policy os:no_such_function", "--policy 'os:no_such_function': module 'os' has no"),
        ("--policy os:sep", "--policy 'os:sep': '/' is not a function"),
        ("--profile h100-qwen32", "did you mean 'h100-qwen32b'?"),
        ("--tensor-parallel-size 2", "take a profile with [model] and [device]"),
        ("--workload arena", "unknown workload 'arena'"),
        ("--trace /no/such.csv", "--trace /no/such.csv: no such file"),
        ("--trace x --workload arena-hard", "--workload and --trace exclude each other"),
        ("--num-requests 5 --seconds 9", "--seconds and --num-requests exclude each other"),
        ("--seconds 0", "--seconds: must be above 0"),
        ("--set low_water=3", "did you mean 'low_water_s'?"),
        ("--set low_water_s", "expected KEY=VALUE"),
        ("--set low_water_s=x", "--set low_water_s=x: expected a number, not 'x'"),
        ("--set high_water_s=1", "--set high_water_s: 1.0 must be above low_water_s (2.0)"),
        ("--set placement.gap=1", "unknown key 'gap'"),
        (
            "--set placement.new=best",
            "placement.new: 'best' is none of pascal, round_robin, least_kv",
        ),
        ("--set placement.balance_gap=nan", "placement.balance_gap: nan is not a finite number"),
        ("--set placement.headroom=-1", "placement.headroom: -1.0 is out of range (from 0 to 0.9)"),
        ("--set quantum_tokens=0", "--set quantum_tokens: 0 is out of range (at least 1)"),
        ("--policy no_module:f", "--policy 'no_module:f': No module named 'no_module'"),
        ("--policy examples.custom_policy:f", "has no attribute 'f'"),
        ("--kv-share 0.0001", "--kv-share 0.0001: leaves 0 KV blocks"),
        ("--kv-share 0.001", "are longer than the 64 tokens that an instance can hold"),
        ("--max-num-batched-tokens 100", "must not be below --max-num-seqs 1024"),
        ("--no-offload --boundary always", "requests cannot move without offload"),
        ("--json /no/such/folder/x.json", "--json /no/such/folder/x.json: No such file"),
        ("--chrome-trace /no/such/x.json", "--chrome-trace /no/such/x.json: No such file"),
        ("--burstiness 2 --workload servegen-r1", "has bursts of its own"),
    ],
)
def test_contradictory_flags_are_refused_before_anything_runs(
    flags: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = "" if "--trace" in flags else "--rate 3"
    count = "" if "--seconds" in flags or "--num" in flags else "--num-requests 5"
    assert main.main(f"simulate run {rate} {count} {flags}".split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("pascal: ")
    assert error.count("\n") == 1
    assert message in error
    assert "vllm" not in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--rate 0", "argument --rate: '0' is not a number above 0"),
        ("--rate 1,,2", "has an empty part"),
        ("--kv-share 1.5", "argument --kv-share: '1.5' is not a share"),
        ("--instances 1.5", "argument --instances: '1.5' is not a whole number above 0"),
        ("--boundary never", "'never' is not one of off, always, adaptive, balance"),
        ("--warm-up soon", "'soon' is not a duration such as 30s"),
        ("--seeds -1", "argument --seeds"),
    ],
)
def test_malformed_flags_are_named(
    flags: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["simulate", "run", *flags.split()])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_workload_without_a_rate_asks_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["simulate", "run"]) == 2
    assert "has no rate of its own" in capsys.readouterr().err


def test_every_combination_is_a_case_and_labels_tell_them_apart() -> None:
    axes = {
        "policy": ("slack", ORACLE),
        "boundary": ("off", "balance"),
        "instances": (2, 4),
        "rate": (1.5,),
    }
    found = variants(axes)
    assert len(found) == 6  # the oracle never moves
    names = labels(found)
    assert len(set(names.values())) == 6
    assert names[Variant("slack", "balance", 4, 1.5)] == "slack, balance, 4 instances"
    assert labels([found[0]]) == {found[0]: "slack"}


def test_the_requested_part_is_measured() -> None:
    case = Case(Variant("slack", "off", 1, 5.0), 1)
    workload = named("arena-hard")
    by_count = Settings(source="arena-hard", num_requests=20, warm_up_s=3.0, cool_down_s=2.0)
    device = by_count.device()
    load = load_of(by_count, workload, device, case)
    inside = [a for a in load.arrivals if load.from_s <= a.at_s < load.to_s]
    assert load.measured == len(inside) == 20
    assert load.from_s == 3.0
    assert load.to_s <= load.arrivals[-1].at_s < load.to_s + 2.0
    by_time = Settings(source="arena-hard", seconds=10.0, warm_up_s=3.0)
    load = load_of(by_time, workload, device, case)
    assert (load.from_s, load.to_s) == (3.0, 13.0)
    assert load.measured == sum(3.0 <= a.at_s < 13.0 for a in load.arrivals)
    small = Settings(source="arena-hard", seconds=50.0, kv_share=0.02)
    load = load_of(small, workload, device, case)
    longest = small.longest(device)
    assert load.refused > 0
    assert all(
        a.lengths.prompt + a.lengths.reasoning + a.lengths.answer <= longest for a in load.arrivals
    )


def test_numbers_go_to_the_policy_or_to_placement() -> None:
    policy, placement = numbers_of(
        "low_water_s=3 quantum_tokens=100 placement.cost_check=false placement.new=least_kv".split()
    )
    assert policy == {"low_water_s": 3.0, "quantum_tokens": 100}
    assert placement == {"cost_check": False, "new": "least_kv"}


@pytest.mark.slow
def test_the_same_command_writes_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here and in processes with other hash seeds, so that no result depends on a set's order."""

    def arguments(number: int) -> list[str]:
        files = f"--json {tmp_path}/{number}.json --chrome-trace {tmp_path}/trace{number}.json"
        return f"simulate run {LITTLE} --instances 2 --boundary balance {files}".split()

    monkeypatch.setenv("PYTHONHASHSEED", "1")
    assert main.main(arguments(1)) == 0
    monkeypatch.setattr(command, "in_parallel", in_this_process)
    assert main.main(arguments(2)) == 0
    assert "slack" in capsys.readouterr().out
    for name in ("{}.json", "trace{}.json"):
        one, two = ((tmp_path / name.format(number)).read_bytes() for number in (1, 2))
        assert one == two
    figures = json.loads((tmp_path / "1.json").read_text())
    result = figures["results"]["slack"]
    assert result["completed"] > 5
    assert result["instances"] == 2
    for name in ("ttft_s", "tpot_s", "slo_violations", "migrations", "kv_peak_share", "intervals"):
        assert name in result
    assert figures["config"]["device"]["kv"]["tokens"] == 90_000
    assert len(json.loads((tmp_path / "trace1.json").read_text())) > 20


def in_this_process(
    function: Callable[..., CaseRun], cases: Sequence[tuple[Any, ...]], progress: object
) -> Iterator[CaseRun]:
    """As `bench.simulator.parallel.in_parallel`."""
    for case in cases:
        yield function(*case)


def test_ctrl_c_ends_all_processes_without_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    running = subprocess.Popen(
        [sys.executable, "-m", "pascal", "simulate", "run", "--rate", "20",
         "--num-requests", "5000", "--json", str(file),
         "--chrome-trace", str(tmp_path / "trace.json")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Background jobs of a shell ignore SIGINT, and child processes inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    trace = tmp_path / "trace.json"
    while not trace.exists() or not trace.stat().st_size:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)  # until the simulation is under way
    running.send_signal(signal.SIGINT)
    output, error = running.communicate()
    assert running.returncode == 130
    assert "pascal: interrupted" in error
    assert "Traceback" not in output + error
    assert not file.read_text()
    assert not trace.read_text().endswith("]\n")  # it did not run to the end
