"""``pascal simulate calibrate``: from step logs to a profile that emulator and simulator read."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec
import pytest

from bench.validation import calibrate
from tests.bench.validation.test_step_fit import TRUE, steps
from workers.emulation.profile import load_profile
from workers.step_log import Header, LoggedStep

HEADER = Header(
    model="/models/tiny",
    device="cpu",
    layers=4,
    heads=2,
    head_dim=64,
    dtype_bytes=2,
    block_size=32,
    kv_blocks=101,
)


def write_log(path: Path, logged: list[LoggedStep], header: Header = HEADER) -> Path:
    lines = [msgspec.json.encode(header), *(msgspec.json.encode(step) for step in logged)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    calibrate.add_arguments(parser)
    return calibrate.run(parser.parse_args([str(argument) for argument in arguments]))


def test_two_logs_become_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logged = steps(1500, lambda rng: 1.0)
    logs = [
        write_log(tmp_path / "a.steps", logged[:700]),
        write_log(tmp_path / "b.steps", logged[700:]),
    ]
    output, figures = tmp_path / "mine.toml", tmp_path / "fit.json"
    flags = ("--output", output, "--json", figures, "--clock", "processor")
    assert run(*logs, *flags, "--network-bytes-per-s", "5e9") == 0
    profile = load_profile(str(output))
    assert profile.step.seconds(5, 1000, 0, 0) == pytest.approx(
        TRUE.seconds(5, 1000, 0, 0), rel=0.01
    )
    assert profile.step.table is not None
    assert (profile.kv.tokens, profile.kv.block_size) == (3200, 32)
    assert profile.kv.bytes_per_token == 2 * 4 * 2 * 64 * 2
    assert profile.links.network_bytes_per_s == 5e9
    assert "1500 engine steps" in " ".join(output.read_text().split())
    assert json.loads(figures.read_text())["steps"] == 1500
    printed = capsys.readouterr().out
    assert "a step, 1 decoding" in printed
    assert "was busy" not in printed


def test_a_machine_that_was_not_quiet_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_log(tmp_path / "a.steps", steps(500, lambda rng: 1.0))
    assert run(log, "--output", tmp_path / "mine.toml") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "was busy" in said
    assert "for 50% of" in said


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["none.steps", "--output", "o.toml"], "none.steps: No such file"),
        (["a.steps", "--output", "o.txt"], "--output"),
        (["a.steps", "--output", "none/o.toml"], "no folder"),
        (["a.steps", "--output", "o.toml", "--offload-bytes", "0"], "--offload-bytes"),
        (["a.steps", "--output", "o.toml", "--json", "none/f.json"], "--json"),
        (["a.steps", "other.steps", "--output", "o.toml"], "other.steps: not from the same engine"),
        (["few.steps", "--output", "o.toml"], "at least 200"),
        (["odd.steps", "--output", "o.toml"], "3 bytes"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    logged = steps(300, lambda rng: 1.0)
    write_log(tmp_path / "a.steps", logged)
    write_log(tmp_path / "few.steps", logged[:50])
    write_log(tmp_path / "other.steps", logged, msgspec.structs.replace(HEADER, layers=5))
    write_log(tmp_path / "odd.steps", logged, msgspec.structs.replace(HEADER, dtype_bytes=3))
    assert run(*flags) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert not (tmp_path / "o.toml").exists()
