"""The reason that is found in the output of a worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.launchers.worker_log import WorkerLog, reason_in

TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/workers/process.py", line 51, in main
    status = uvloop.run(run(settings))
             ^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/workers/engine/vllm_config.py", line 12, in vllm_config
    raise ValueError("the model has no chat template")
ValueError: the model has no chat template
"""
CHAINED = """\
Traceback (most recent call last):
  File "/srv/a.py", line 3, in f
    open("weights")
FileNotFoundError: [Errno 2] No such file or directory: 'weights'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/a.py", line 9, in <module>
    raise RuntimeError("the model cannot be loaded") from error
RuntimeError: the model cannot be loaded
  File "x", line 3
"""
OF_VLLM = """\
INFO 11-28 15:00:01 [__init__.py:216] Automatically detected platform cuda.
(EngineCore_0 pid=4211) ERROR 11-28 15:00:09 [core.py:718] EngineCore failed to start.
(EngineCore_0 pid=4211) ERROR 11-28 15:00:09 [core.py:718] Traceback (most recent call last):
(EngineCore_0 pid=4211) ERROR 11-28 15:00:09 [core.py:718]   File "/v/core.py", line 709, in run
(EngineCore_0 pid=4211) ERROR 11-28 15:00:09 [core.py:718]     engine_core = EngineCoreProc(*args)
(EngineCore_0 pid=4211) ERROR 11-28 15:00:09 [core.py:718]                   ^^^^^^^^^^^^^^^^^^^^^
(EngineCore_0 pid=4211) ERROR 11-28 15:00:09 [core.py:718] ValueError: no room (3.1/79.2 GiB)
(EngineCore_0 pid=4211) Process EngineCore_0:
(EngineCore_0 pid=4211) Traceback (most recent call last):
(EngineCore_0 pid=4211)   File "/usr/lib/process.py", line 314, in _bootstrap
(EngineCore_0 pid=4211)     self.run()
(EngineCore_0 pid=4211) ValueError: no room (3.1/79.2 GiB)
Traceback (most recent call last):
  File "/v/utils.py", line 729, in wait_for_engine_startup
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
SEGFAULT = """\
Fatal Python error: Segmentation fault

Current thread 0x00007f1 (most recent call first):
  File "/srv/x.py", line 3 in f
Extension modules: numpy.core, torch._C (total: 20)
"""
WARNED = """\
[rank0]:[W1128 15:00:00.1 ProcessGroupNCCL.cpp:1250] Warning: process group has NOT been destroyed
"""


def event(**fields: object) -> str:
    return json.dumps({"event": "worker_failed", "level": "error", **fields}) + "\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (event(reason="no chat template", exception=TRACEBACK * 50) + WARNED, "no chat template"),
        (event(reason="the first") + event(reason="the last"), "the last"),
        (event(reason="over\ntwo lines"), "over two lines"),
        (event(event="vllm", reason="no", logger="worker_failed") + TRACEBACK, "ValueError: the"),
        (event(reason="") + TRACEBACK, "ValueError: the model has no chat template"),
        (TRACEBACK, "ValueError: the model has no chat template"),
        (TRACEBACK + WARNED, "ValueError: the model has no chat template"),
        (CHAINED, "RuntimeError: the model cannot be loaded"),
        (OF_VLLM, "ValueError: no room (3.1/79.2 GiB)"),
        (SEGFAULT, "Fatal Python error: Segmentation fault"),
        (
            "torch.OutOfMemoryError: CUDA out of memory.\n    at 0x1\n",
            "torch.OutOfMemoryError: CUDA out of memory.",
        ),
        ("python: can't open file 'x'\n", "python: can't open file 'x'"),
        ('{"event": "worker_started", "level": "info"}\n', '{"event": "worker_started"'),
        ('{"event": "worker_failed", broken\n', '{"event": "worker_failed", broken'),
        ("\n\n", "it printed nothing"),
        ("RuntimeError: " + "x" * 9999, "RuntimeError: xxx"),
    ],
)
def test_the_reason_is_the_cause_and_not_the_middle_of_a_traceback(text: str, reason: str) -> None:
    found = reason_in(text)
    assert found.startswith(reason)
    assert "\n" not in found
    assert len(found) <= 500


def test_only_what_this_start_printed_counts(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.log"
    assert WorkerLog.begun(path).begin == 0
    path.write_text(event(reason="of yesterday"))
    log = WorkerLog.begun(path)
    said = log.why_ended(1, "while starting")
    assert said == f"exited with 1 while starting: it printed nothing (log: {path})"
    with path.open("a") as file:
        file.write("loading\n")
    assert "starting: loading (log" in log.why_ended(1, "while starting")
    said = log.why_ended(-9, "while serving")
    assert said == f"was killed by SIGKILL while serving (log: {path})"
    with path.open("a") as file:
        file.write(SEGFAULT)
    said = log.why_ended(-11, "while serving")
    assert said.startswith("was killed by SIGSEGV while serving: Fatal Python error: Segm")
    path.write_text("cut by somebody\n")  # and so shorter than it was
    assert "cut by somebody" in log.why_ended(1, "while serving")
    path.unlink()
    said = log.why_ended(1, "while serving")
    assert "exited with 1 while serving: its log cannot be read" in said
    assert log.why_ended(-99, "while serving").startswith("was killed by signal 99 while")


def test_a_long_log_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.log"
    path.write_text("noise\n" * 100_000 + event(reason="this"))
    assert WorkerLog(path, 0).why_ended(1, "here").startswith("exited with 1 here: this (log")
