"""A shortage of descriptors is logged once with either loop, and the gateway recovers."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from socket import create_connection
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.descriptors import DescriptorWatch
from tests.support.server import ROOT


def test_scarce_descriptors_are_told_once_until_many_are_free_again() -> None:
    held = 940
    watch = DescriptorWatch(lambda: 1000, lambda: held)
    with capture_logs() as lines:
        for descriptor in (10, 949):
            watch.accepted(descriptor)
        assert lines == []
        for descriptor in (950, 999, 940, 960, 12, 951):  # 12: a gap among many
            watch.accepted(descriptor)
        assert [(line["event"], line["limit"]) for line in lines] == [
            ("descriptors_ran_short", 1000)
        ]
        held = 899
        for descriptor in (100, 951, 952):
            watch.accepted(descriptor)
    assert len(lines) == 2


def test_who_cannot_even_count_has_none() -> None:
    def count() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    watch = DescriptorWatch(lambda: 1000, count)
    with capture_logs() as lines:
        for descriptor in (999, 5, 999):
            watch.accepted(descriptor)
    assert len(lines) == 1


async def test_what_asyncio_reports_of_it_is_told_once_and_the_rest_as_ever() -> None:
    loop = asyncio.get_running_loop()
    passed_on: list[dict[str, Any]] = []
    loop.default_exception_handler = passed_on.append  # type: ignore[method-assign,assignment]
    watch = DescriptorWatch(lambda: 1000)
    refused = {
        "message": "socket.accept() out of system resource",
        "exception": OSError(errno.EMFILE, "Too many open files"),
    }
    other = {"message": "Task exception was never retrieved", "exception": RuntimeError()}
    elsewhere = {**other, "exception": OSError(errno.EMFILE, "Too many open files")}
    with capture_logs() as lines:
        for context in (refused, refused, other, elsewhere):
            watch.loop_failed(loop, context)
    assert [line["event"] for line in lines] == ["descriptors_ran_short"]
    assert passed_on == [other, elsewhere]


# A gateway without workers that may have few descriptors; prints its port, ends with its input.
PROGRAM = """
import asyncio, resource, socket, sys, tempfile
from pathlib import Path

import uvloop

from gateway import logs
from gateway.app import make_runner, make_site
from gateway.config import Config
from gateway.descriptors import DescriptorWatch
from gateway.service import ResponseService
from gateway.store import ResponseStore

LIMIT = 60

async def main():
    logs.configure("info")
    watch = DescriptorWatch()
    asyncio.get_running_loop().set_exception_handler(watch.loop_failed)
    service = ResponseService(Config(), ResponseStore(Path(tempfile.mkdtemp()) / "store"))
    runner = make_runner(service, watch)
    await runner.setup()
    await make_site(runner, "127.0.0.1", 0).start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

(asyncio if sys.argv[1] == "asyncio" else uvloop).run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_gateway_without_descriptors_says_so_once_and_serves_again(loop: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, loop],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = ("127.0.0.1", int(process.stdout.readline()))
        assert _served(address)
        with ExitStack() as stack:
            for _ in range(80):
                stack.enter_context(create_connection(address, timeout=5))
            assert not _served(address)
        deadline_s = time.monotonic() + 20
        while not _served(address):
            assert time.monotonic() < deadline_s, "it does not serve again"
        _, output = process.communicate()
    finally:
        process.kill()
        process.wait()
    lines = [json.loads(line) for line in output.splitlines()]
    assert [(line["event"], line["limit"]) for line in lines] == [("descriptors_ran_short", 60)]


def _served(address: tuple[str, int]) -> bool:
    try:
        with create_connection(address, timeout=0.5) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            return client.recv(100).startswith(b"HTTP/1.1 200")
    except (ConnectionError, TimeoutError):
        return False
