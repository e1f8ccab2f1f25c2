"""The set-up script's decisions: which Python, which extra, when there is nothing to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import machine
import pytest
import setup_env
from machine import Interpreter, SetupError, available_memory_gib, check_machine, choose_python

OLD = Interpreter("/usr/bin/python3", (3, 9, 18))
NEW = Interpreter("/usr/bin/python3.12", (3, 12, 1))
NEWEST = Interpreter("/usr/bin/python3.13", (3, 13, 0))
FUTURE = Interpreter("/usr/bin/python3", (3, 14, 0))


def test_first_supported_python_is_taken() -> None:
    found = {"python3": OLD, "python3.11": None, "python3.12": NEW, "python3.13": NEWEST}
    assert choose_python(None, found) is NEW


def test_the_default_python_wins_where_it_is_supported() -> None:
    assert choose_python(None, {"python3": NEWEST, "python3.12": NEW}) is NEWEST


def test_a_named_python_is_the_only_choice() -> None:
    assert choose_python("python3.12", {"python3.12": NEW}) is NEW
    with pytest.raises(SetupError, match=r"PYTHON=python3\.11 does not run"):
        choose_python("python3.11", {"python3.11": None})
    with pytest.raises(SetupError, match=r"is Python 3\.9\.18 .*3\.11, 3\.12 or 3\.13 is needed"):
        choose_python("python3", {"python3": OLD})


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"python3": OLD, "python3.11": None}, r"found 3\.9\.18 \(/usr/bin/python3\)"),
        ({"python3": FUTURE}, r"found 3\.14\.0"),
        ({"python3": None}, "found none"),
    ],
)
def test_no_supported_python_is_one_clear_line(
    found: dict[str, Interpreter | None], text: str
) -> None:
    with pytest.raises(SetupError, match=text) as error:
        choose_python(None, found)
    assert "\n" not in str(error.value)


def test_a_command_that_fails_is_no_python(tmp_path: Path) -> None:
    shim = tmp_path / "python3"
    shim.write_text("#!/bin/sh\necho 'not installed' >&2\nexit 127\n")
    shim.chmod(0o755)
    assert machine.probe_interpreter(str(shim)) is None
    assert machine.probe_interpreter(str(tmp_path / "absent")) is None


def test_the_extra_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for present, extra in ((True, "gpu"), (False, "cpu")):
        monkeypatch.setattr(setup_env, "has_nvidia_gpu", lambda present=present: present)
        assert setup_env.choose_extra(None) == extra
        assert setup_env.choose_extra("") == extra
        assert setup_env.choose_extra("cpu") == "cpu"
        assert setup_env.choose_extra("gpu") == "gpu"
    with pytest.raises(SetupError, match="PASCAL_EXTRA=tpu"):
        setup_env.choose_extra("tpu")


def test_memory_is_what_a_cgroup_still_allows() -> None:
    meminfo = "MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n"
    assert available_memory_gib(meminfo, "", "") == 8
    assert available_memory_gib(meminfo, "max\n", "123\n") == 8
    assert available_memory_gib(meminfo, f"{2 * 2**30}\n", f"{2**30}\n") == 1


def test_too_little_disk_space_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"too little disk space: .* GiB free in") as error:
        check_machine((tmp_path / "not" / "made" / "yet",), 10**9)
    assert "\n" not in str(error.value)
    check_machine((tmp_path / "not" / "made" / "yet",), 0)


def test_any_changed_input_changes_the_digest() -> None:
    parts: Sequence[bytes] = (b"lock", b"project")
    digests = {
        setup_env.wanted_digest("cpu", parts),
        setup_env.wanted_digest("gpu", parts),
        setup_env.wanted_digest("cpu", (b"lock2", b"project")),
        setup_env.wanted_digest("cpu", (b"lock", b"project2")),
        setup_env.wanted_digest("cpu", (b"lockp", b"roject")),
    }
    assert len(digests) == 5


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    monkeypatch.setattr(setup_env, "VENV", venv)
    monkeypatch.setattr(setup_env, "STAMP", venv / "stamp.json")
    return venv


def test_only_a_finished_environment_is_ready(environment: Path) -> None:
    assert not setup_env.is_ready("digest", None)
    setup_env.write_stamp("unfinished", "digest", NEW)
    assert not setup_env.is_ready("digest", None)
    setup_env.write_stamp("ready", "digest", NEW)
    assert setup_env.is_ready("digest", None)
    assert not setup_env.is_ready("another", None)


def test_a_damaged_stamp_or_a_lost_python_is_not_ready(environment: Path) -> None:
    setup_env.write_stamp("ready", "digest", NEW)
    (environment / "bin" / "python").unlink()
    assert not setup_env.is_ready("digest", None)
    (environment / "stamp.json").write_text("{")
    assert setup_env.read_stamp() == {}


def test_another_python_is_not_ready(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup_env.write_stamp("ready", "digest", NEW)
    monkeypatch.setattr(setup_env, "find_python", lambda _wanted: NEWEST)
    assert not setup_env.is_ready("digest", "python3.13")
    monkeypatch.setattr(setup_env, "find_python", lambda _wanted: NEW)
    assert setup_env.is_ready("digest", "python3.12")
