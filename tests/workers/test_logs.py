"""The log of a worker, from all of its threads and processes."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator
from logging.config import dictConfig
from pathlib import Path
from typing import Any

import pytest
import structlog

from workers import logs, tracing
from workers.errors import WorkerError


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore logging and the environment after a test."""
    for name in ("PASCAL_LOG_INSTANCE_ID", "PASCAL_LOG_CAUSES", "VLLM_LOGGING_CONFIG_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    hook, log = threading.excepthook, logging.getLogger("vllm")
    before = (log.handlers[:], log.level, log.propagate)
    yield
    log.handlers[:], log.level, log.propagate = before
    threading.excepthook = hook
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_lines_of_every_thread_carry_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(logging.INFO, "worker-7")
    log = structlog.get_logger()

    def work() -> None:
        log.warning("ticket_refused")
        log.debug("not_said")
        raise RuntimeError("and it ends")

    thread = threading.Thread(target=work, name="side-channel")
    thread.start()
    thread.join()
    first, second = lines(capsys)
    assert (first["event"], first["instance_id"]) == ("ticket_refused", "worker-7")
    assert (second["event"], second["thread"]) == ("thread_failed", "side-channel")
    assert second["instance_id"] == "worker-7"
    assert "RuntimeError: and it ends" in second["exception"]


def test_lines_about_a_response_carry_the_id_of_its_http_request(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(logging.INFO, "worker-7")
    log = structlog.get_logger()
    tracing.note("resp_1/0", "req-a")
    tracing.note("resp_2/0", "req-b")
    tracing.note("resp_2/0", None)  # submitted again, by a gateway that knows no id
    for request_id in ("resp_1/0", "resp_2/0", "resp_3/0"):
        log.error("request_failed_in_engine", request_id=request_id)
    log.error("engine_failed")
    assert [line.get("x_request_id") for line in lines(capsys)] == ["req-a", None, None, None]
    for number in range(2 * tracing._MOST_KEPT):
        tracing.note(f"resp_{number}/1", "req")
    assert len(tracing._ids) == tracing._MOST_KEPT
    assert f"resp_{number}/1" in tracing._ids


def engine_process(failure: str) -> None:
    """Log and raise as vLLM does in an engine process that cannot start."""
    config = json.loads(Path(os.environ["VLLM_LOGGING_CONFIG_PATH"]).read_text("utf-8"))
    dictConfig(config)
    log = logging.getLogger("vllm.v1.engine.core")
    log.info("not said")
    structlog.get_logger().warning("ticket_refused")
    for error in (ValueError(failure), RuntimeError("the next process saw the first one end")):
        try:
            raise error
        except Exception:
            log.exception("EngineCore failed to start.")


def test_the_cause_is_told_from_the_process_that_knows(capfd: pytest.CaptureFixture[str]) -> None:
    logs.prepare_engine_logs("worker-7", processes=True)
    process = multiprocessing.get_context("spawn").Process(
        target=engine_process, args=("not enough memory\nfor this model",)
    )
    process.start()
    process.join()
    error = RuntimeError("Engine core initialization failed. See root cause above. {...}")
    assert logs.start_failure(error) == "not enough memory for this model"
    assert logs.start_failure(RuntimeError("another")) == "another"
    said = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line[:1] == "{"]
    assert [line["event"] for line in said] == [
        "ticket_refused",
        "EngineCore failed to start.",
        "EngineCore failed to start.",
    ]
    assert {line["instance_id"] for line in said} == {"worker-7"}
    assert "ValueError: not enough memory" in said[1]["exception"]
    path = os.environ["PASCAL_LOG_CAUSES"]
    logs.forget_causes()
    assert not os.path.exists(path)
    assert "See root cause above" in logs.start_failure(error)


class Problems(Exception):
    """An error like those of pydantic."""

    def errors(self) -> list[dict[str, str]]:
        return [{"msg": "Value error, no such dtype"}]


def test_the_reason_is_the_error_behind_the_error_in_one_line() -> None:
    behind = OSError("no\n  space")
    outer = RuntimeError("could not")
    outer.__cause__ = behind
    group = ExceptionGroup("unhandled errors in a TaskGroup", [outer])
    assert logs.reason_of(group) == "no space"
    own = WorkerError("listen: taken")
    own.__cause__ = behind
    assert logs.reason_of(own) == "listen: taken"
    assert logs.reason_of(Problems()) == "Value error, no such dtype"
    assert logs.reason_of(KeyError()) == "KeyError"
    assert logs.reason_of(ImportError("libfoo.so.1")) == "ImportError: libfoo.so.1"
    assert len(logs.reason_of(ValueError("x" * 10_000))) < 600


def test_vllms_lines_take_the_same_form(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_LOGGING_LEVEL", raising=False)  # a test before this one may set it
    logs.prepare_engine_logs("worker-7", processes=False)
    log = logging.getLogger("vllm.x")
    log.info("not said")
    log.warning("%d%% of %s", 100, "it")
    (line,) = lines(capsys)
    assert (line["event"], line["level"]) == ("100% of it", "warning")
    assert (line["logger"], line["instance_id"]) == ("vllm.x", "worker-7")
