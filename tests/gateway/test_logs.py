"""The log of a failure: where, but not with which values."""

import subprocess
import sys

from tests.server import ROOT

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


def test_a_logged_traceback_holds_no_local_values() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "broken after 15 characters" in result.stderr
    assert "request_failed" in result.stderr
    assert "SECRET" not in result.stderr
