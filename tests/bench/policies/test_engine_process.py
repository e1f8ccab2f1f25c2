"""Processes that measurements start: their messages, their failures and their end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.policies.engine_process import ROOT, EngineProcess, ProcessFailed, ServerProcess

ECHO = "tests.bench.support.echo_engine"
CORE = min(os.sched_getaffinity(0))


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_messages_go_both_ways_and_what_libraries_print_does_not() -> None:
    with EngineProcess("the echo", ECHO, core=CORE) as process:
        for text in ("one", 'line\n"two"'):
            process.send(text)
            assert process.receive(list[Any]) == [text, process.pid, CORE]
        assert os.getsid(process.pid) == process.pid
    assert gone(process.pid)


def test_a_failure_names_the_process_and_its_last_words() -> None:
    with EngineProcess("the echo", ECHO) as process:
        process.send("fail")
        with pytest.raises(ProcessFailed, match=r"(?s)the echo: it failed: .*its last words"):
            process.receive(str)
        process.send("one")
        with pytest.raises(ProcessFailed):
            process.receive(str)


def test_a_core_that_does_not_exist_is_refused_and_nothing_is_left() -> None:
    process = EngineProcess("the echo", ECHO, core=2**15)
    with pytest.raises(ProcessFailed, match="the echo cannot run on core 32768"), process:
        pass
    assert gone(process.pid)


def test_a_busy_process_ends_with_its_block() -> None:
    with EngineProcess("the echo", ECHO) as process:
        process.send("hang")
        assert process.receive(list[Any])[0] == "hang"
    assert gone(process.pid)


def test_a_busy_process_ends_with_its_parent() -> None:
    parent = f"""
from bench.policies.engine_process import EngineProcess
process = EngineProcess("the echo", "{ECHO}").__enter__()
process.send("hang")
print(process.receive(list)[1], flush=True)
__import__("os").kill(__import__("os").getpid(), 9)
"""
    ran = subprocess.run(
        [sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    pid = int(ran.stdout)
    deadline_s = time.monotonic() + 30.0
    while not gone(pid):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def until_ended(process: ServerProcess, deadline_s: float) -> None:
    """:raises ProcessFailed: when it has ended."""
    while True:
        process.check()
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_server_that_ended_is_noticed_and_its_children_are_killed() -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '3600']).pid, flush=True)"
    deadline_s = time.monotonic() + 30.0
    said = r"the server: it ended with status 0: \d+$"
    with ServerProcess("the server", ["-c", code]) as process:
        with pytest.raises(ProcessFailed, match=said) as failed:
            until_ended(process, deadline_s)
        child = int(str(failed.value).rpartition(" ")[2])
        assert not gone(child)
    while not gone(child):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
