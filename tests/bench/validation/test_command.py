"""``pascal simulate validate``: its flags, its output, and one small replay of everything."""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from rich.console import Console

from bench.policies.engine_clock import Share
from bench.policies.engine_process import ProcessFailed
from bench.policies.real_engines import SETTINGS
from bench.simulator.scheduler_factory import InstanceSettings
from bench.validation import command, runs
from bench.validation.calibrate import profile_of
from bench.validation.regimes import CALIBRATION, JUDGED, NUMBERS, THRESHOLDS, compare, trace_of
from bench.validation.replay_engine import Replayed, ReplayEngine, Served, Trace
from bench.validation.runs import Extent, Rounds, replay_rounds, simulated
from bench.validation.step_fit import fit_steps
from workers.emulation.profile import load_profile
from workers.settings import WorkerSettings
from workers.step_log import Header, LoggedStep

GOOD = {"e2e": 0.01, "e2e_mean": 0.01, "ttft_mean": 0.01, "tpot": 0.01}
POOR = {"e2e": 0.01, "e2e_mean": 0.01, "ttft_mean": 0.5, "tpot": 0.01}
SMALL = msgspec.structs.replace(
    SETTINGS, kv_offload_gib=0.0, max_num_seqs=64, max_num_batched_tokens=2048
)


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, float]]:
    """Invented results of the parts; no engine is started."""
    found = {"engines": dict(GOOD), "emulated": dict(POOR)}

    def part(name: str) -> Any:
        def measure(*arguments: Any) -> dict[str, Any]:
            console = next(one for one in arguments if isinstance(one, Console))
            console.print(f"{name} are being run")
            return {"mape": found[name]}

        return measure

    monkeypatch.setattr(command, "_engines", part("engines"))
    monkeypatch.setattr(command, "_emulated", part("emulated"))
    return found


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--rounds", "0"], "--rounds: at least 1, not 0"),
        (["--requests", "1"], "--requests"),
        (["--json", "none/f.json"], "--json none/f.json"),
        (["--profile-output", "mine.txt"], "--profile-output mine.txt"),
        (["--profile-output", "none/mine.toml"], "--profile-output none/mine.toml: No such"),
        (["--only", "emulated", "--profile-output", "mine.toml"], "--profile-output: only"),
        (["--emulate", "h100-qwen32"], "did you mean 'h100-qwen32b'?"),
    ],
)
def test_a_wrong_flag_is_named_before_anything_runs(
    measured: object, capsys: pytest.CaptureFixture[str], flags: list[str], named: str
) -> None:
    assert run(*flags) == 2
    captured = capsys.readouterr()
    assert named in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_json_goes_to_standard_output_alone_or_into_a_file(
    measured: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--json") == 0
    captured = capsys.readouterr()
    results = json.loads(captured.out)
    assert results["mape"] == GOOD  # of real engines, where both parts were run
    assert results["emulated"]["mape"] == POOR
    assert "engines are being run" in captured.err
    assert run("--only", "emulated", "--json", path := tmp_path / "found.json") == 0
    assert json.loads(path.read_text())["mape"] == POOR


def test_a_check_fails_by_name(measured: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert run("--only", "engines", "--check") == 0
    capsys.readouterr()
    assert run("--check") == 1
    assert capsys.readouterr().err == "pascal: too far apart: emulated ttft_mean\n"


def test_a_table_has_a_line_for_each_trace() -> None:
    one = Served(arrival_s=0.0, first_s=1.0, finished_s=2.0, answer=11, preemptions=3)
    later = msgspec.structs.replace(one, finished_s=2.02)
    comparison = compare("pressed", [[one]], [[later]], [one], Share(1.0, 0.5))
    rows = command.comparison_table("any", [comparison])
    cells = {str(column.header): list(column.cells) for column in rows.columns}
    assert cells["trace"] == ["pressed", "MAPE"]
    assert cells["e2e"] == ["1.00%", "1.00%"]
    assert cells["mean e2e"] == ["+1.00%", "1.00%"]
    assert cells["e2e, steady"][0] == "0.00%"
    assert cells["mean TPOT"] == ["+2.00%", "2.00%"]
    assert cells["processor"][0] == "50%"


class TwoSpeeds:
    """Invented rounds on a machine that is slow while one trace is replayed and fast at the other.

    Everything else is as the profile says, so a simulation that knows the speeds is exact.
    """

    slow: ClassVar = {"calm": 2.0, "pressed": 0.5}
    profile = load_profile("h100-qwen32b")
    header = Header(
        model="made up",
        device="cpu",
        layers=1,
        heads=1,
        head_dim=1,
        dtype_bytes=2,
        block_size=profile.kv.block_size,
        kv_blocks=501,
    )

    def __init__(self) -> None:
        self.settings: WorkerSettings | None = None

    def rounds(self, extent: Extent, settings: WorkerSettings, *_: object) -> Rounds:
        self.settings = settings
        found = Rounds([], {}, {})
        for regime in JUDGED:
            trace = trace_of(
                regime,
                self.profile.step,
                requests=extent.requests,
                policy=extent.policy,
                block_size=self.header.block_size,
                kv_blocks=500,
                seed=extent.seed,
            )
            found.traces.append(trace)
            factor = self.slow[regime.name]
            served = simulated(trace, self.profile, settings, [factor])
            found.replays[regime.name] = [Replayed(served, self.header, self.steps(factor))]
            found.calibration[regime.name] = [self.steps(factor)]
        return found

    def steps(self, factor: float) -> list[LoggedStep]:
        rng = random.Random(1)
        found = []
        for _ in range(2000):
            decodes = rng.randint(1, 16)
            kv, prefill = decodes * rng.randint(50, 300), rng.choice([0, 0, 0, 40, 120])
            took_s = factor * self.profile.step.seconds(decodes, kv, prefill, prefill**2)
            found.append(
                LoggedStep(took_s, took_s, decodes, kv, prefill, prefill**2, int(prefill > 0))
            )
        return found


@pytest.fixture
def two_speeds(monkeypatch: pytest.MonkeyPatch) -> TwoSpeeds:
    found = TwoSpeeds()
    monkeypatch.setattr(command, "replay_rounds", found.rounds)
    return found


def test_the_machine_s_speed_is_in_the_simulation_on_the_processor_s_clock(
    two_speeds: TwoSpeeds, tmp_path: Path
) -> None:
    path, profile = tmp_path / "found.json", tmp_path / "fitted.toml"
    flags = ("--only", "engines", "--requests", "8", "--json", path, "--profile-output", profile)
    assert run(*flags) == 0
    engines = json.loads(path.read_text())["engines"]
    assert engines["policy"] == "fcfs"
    assert engines["clock"] == "processor"
    assert engines["mape"]["e2e"] < 0.03
    assert engines["speed_correlation"] > 0.99
    for trace in engines["traces"]:
        assert trace["e2e_steady"] > 0.2
    assert load_profile(str(profile)).kv.blocks == 500
    assert run("--only", "engines", "--requests", "8", "--clock", "wall", "--json", path) == 0
    assert json.loads(path.read_text())["engines"]["mape"]["e2e"] > 0.2


def test_a_simulation_has_what_the_trace_was_replayed_with(
    two_speeds: TwoSpeeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.simulator import cluster

    seen: list[InstanceSettings] = []
    simulate = cluster.simulate

    def watched(settings: InstanceSettings, *arguments: Any) -> Any:
        seen.append(settings)
        return simulate(settings, *arguments)

    monkeypatch.setattr(cluster, "simulate", watched)
    trace = Trace(
        name="any", requests=((0.0, 9, 9, 9),), policy="rr", numbers=NUMBERS, kv_blocks=40
    )
    simulated(trace, two_speeds.profile, SMALL)
    (settings,) = seen
    assert (settings.policy, settings.policy_numbers) == ("rr", NUMBERS)
    assert settings.kv_blocks == 41, "one block is never given out"
    assert not settings.offload
    assert settings.max_num_seqs == SMALL.max_num_seqs
    assert settings.max_num_batched_tokens == SMALL.max_num_batched_tokens


class FakeEngine:
    """Replaces both engines of `replay_rounds`, and records the traces that each replays."""

    made: list[FakeEngine]

    def __init__(self, settings: object, clock: object, core: object) -> None:
        self.replayed: list[Trace] = []
        self.made.append(self)

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def replay(self, trace: Trace) -> Replayed:
        self.replayed.append(trace)
        if trace.name in ("calm", "pressed"):  # goes on until three calibrations are done
            while sum(len(engine.replayed) for engine in self.made) % 4:
                time.sleep(0.001)
        return Replayed((), TwoSpeeds.header, TwoSpeeds().steps(1.0)[:400])


def test_engines_change_roles_and_calibration_lasts_as_long_as_what_it_is_beside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeEngine, "made", [], raising=False)
    monkeypatch.setattr(runs, "ReplayEngine", FakeEngine)
    extent = Extent(policy="rr", rounds=4, requests=12, seed=1, profile="")
    found = replay_rounds(extent, SMALL, "processor", None, lambda name: None)
    assert [len(replays) for replays in found.replays.values()] == [4, 4]
    assert all(399 <= len(spell) <= 400 for spell in found.spells)
    first, second = ([trace.name for trace in one.replayed] for one in FakeEngine.made)
    for names in (first, second):
        assert names.count("calm") == names.count("pressed") == 2
        for regimes in CALIBRATION:
            for regime in regimes:
                assert regime.name in names
    traces = [trace for one in FakeEngine.made for trace in one.replayed]
    calibrating = [trace for trace in traces if trace.name not in ("burst", "calm", "pressed")]
    assert len({trace.requests for trace in calibrating}) == len(calibrating)
    assert {trace.policy for trace in traces} == {"rr"}


def test_an_engine_that_cannot_start_says_why() -> None:
    with (
        pytest.raises(ProcessFailed, match="Invalid argument"),
        ReplayEngine(SMALL, "processor", 2**15),  # there is no such core
    ):
        pass


@pytest.mark.engine
@pytest.mark.slow
def test_a_trace_on_a_real_engine_and_in_virtual_time() -> None:
    trace = Trace(
        name="small",
        requests=tuple((0.01 * index, 20, 60, 40) for index in range(8)),
        policy="slack",
        numbers=NUMBERS,
        kv_blocks=12,  # for three of them
    )
    with ReplayEngine(SMALL, "processor", None) as engine:
        replay = engine.replay(trace)
    assert [request.answer for request in replay.requests] == [40] * 8
    # A token comes of each decode and, first of all or after a preemption, of a prefill.
    assert sum(step.decodes + step.prefills for step in replay.steps) == 8 * 100
    assert sum(request.preemptions for request in replay.requests) > 0
    fit = fit_steps(replay.steps, "processor")
    virtual = simulated(trace, profile_of(fit, replay.header), SMALL)
    assert [r.arrival_s for r in virtual] == [r.arrival_s for r in replay.requests]
    assert sum(request.preemptions for request in virtual) > 0
    found = compare("small", [replay.requests], [virtual], virtual, replay.share)
    # How close it is, is for a benchmark to say; this far apart they would be different things.
    assert found.e2e < 4 * THRESHOLDS["ttft_mean"]


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.long
def test_two_engines_on_a_core_and_what_the_one_did_beside_the_other() -> None:
    extent = Extent(policy="slack", rounds=2, requests=4, seed=1, profile="")
    told: list[str] = []
    found = replay_rounds(extent, SMALL, "processor", None, told.append)
    assert told == ["calm", "pressed"] * 2
    for trace in found.traces:
        replays, beside = found.replays[trace.name], found.calibration[trace.name]
        assert len(replays) == len(beside) == 2
        for replay, spell in zip(replays, beside, strict=True):
            assert len(replay.requests) == 4
            assert spell
            lasted_s = sum(step.wall_s for step in replay.steps)
            assert sum(step.wall_s for step in spell) <= lasted_s
            assert [step[2:] for step in spell] != [step[2:] for step in replay.steps[: len(spell)]]
    assert len(found.spells) == 4
