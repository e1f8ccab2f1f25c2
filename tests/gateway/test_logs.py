"""The gateway's log: events, tracebacks without values, and lines that cannot be written."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.server import ROOT
from workers.line_logger import json_line

PROGRAM = """
import structlog
from gateway import logs

logs.configure("info")

def fail(prompt):
    raise RuntimeError(f"broken after {len(prompt)} characters")

try:
    fail("a secret prompt".upper())
except RuntimeError:
    structlog.get_logger().exception("request_failed", request_id="resp_1")
"""


LIBRARIES = """
import logging
from aiohttp.web import RequestPayloadError
from gateway import logs

logs.configure("error")
try:
    raise RequestPayloadError("Can not decode content-encoding: gzip")
except RequestPayloadError:
    logging.getLogger("aiohttp.server").exception("Unhandled exception")
try:
    raise ValueError("key sk-secret")
except ValueError:
    logging.getLogger("aiohttp.server").exception("Error handling request")
    logging.getLogger("asyncio").error("Task exception was never retrieved", exc_info=True)
logging.getLogger("websockets").info("connection open")
"""


def test_what_libraries_log_is_an_event_a_line_too() -> None:
    result = subprocess.run(
        [sys.executable, "-c", LIBRARIES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    http, loop = [json.loads(line) for line in result.stderr.splitlines()]
    assert (http["logger"], http["event"]) == ("aiohttp.server", "Error handling request")
    assert (http["kind"], "secret" in str(http)) == ("ValueError", False)
    assert (loop["logger"], loop["exception"][0]["exc_type"]) == ("asyncio", "ValueError")


def test_a_logged_traceback_holds_no_local_values() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "broken after 15 characters" in result.stderr
    assert "request_failed" in result.stderr
    assert "SECRET" not in result.stderr


LINES = """
import os
import sys
from pathlib import Path
import structlog
from gateway import logs
from pascal import serve

logs.configure("info")
structlog.get_logger().info("lost")
serve.say("lost")
os.dup2(int(sys.argv[1]), 2)
structlog.get_logger().info("kept")
os._exit(0)
"""


def test_a_line_that_cannot_be_written_is_lost_and_ends_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with open("/dev/full", "w", encoding="utf-8") as full, kept.open("w") as later:
        subprocess.run(
            [sys.executable, "-c", LINES, str(later.fileno())],
            cwd=ROOT,
            stdout=full,
            stderr=full,
            pass_fds=(later.fileno(),),
            check=True,
        )
    assert '"kept"' in kept.read_text()


def test_a_worker_goes_on_if_its_log_cannot_be_written() -> None:
    program = "import logging, structlog; from workers import logs; logs.configure(0, 'worker-0'); "
    with open("/dev/full", "w", encoding="utf-8") as full:
        result = subprocess.run(
            [sys.executable, "-c", f"{program}structlog.get_logger().info('lost'); print('on')"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=full,
            check=False,
        )
    assert result.stdout == b"on\n"


@dataclass
class Named:
    name: str


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
EVENTS = st.dictionaries(st.text(), st.recursive(LEAVES, st.lists, max_leaves=5))


@given(EVENTS)
def test_a_line_says_what_was_logged_in_ascii_alone(event: dict[str, Any]) -> None:
    line = json_line(event, default=repr)
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == json.loads(json.dumps(event))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("na\u00efve \u2028", '"na\\u00efve \\u2028"'),
        ("bytes \udcff of a path", '"bytes \\udcff of a path"'),
        (2**64, "18446744073709551616"),
        ({1: "key"}, '{"1":"key"}'),
        (Path("/tmp"), "\"PosixPath('/tmp')\""),
        (Named("x"), "\"Named(name='x')\""),
    ],
)
def test_whatever_is_logged_a_line_comes_out(value: object, written: str) -> None:
    assert json_line({"event": "e", "value": value}, default=repr) == (
        f'{{"event":"e","value":{written}}}'
    )
