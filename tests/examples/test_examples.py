"""Every program in `examples/` runs, against one real server, and pages show it as it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection, serve

from tests.acceptance.doc_blocks import ROOT, fences, guide_pages
from tests.support.programs import needs
from tests.support.server import Server
from tests.workers.engine.test_own_processes import call, free_port

EXAMPLES = ROOT / "examples"
ANSWER_S = 300.0  # guards against a hang


def run(*command: str) -> str:
    """What a program prints; it has to succeed."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=ANSWER_S)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def run_example(name: str, server: Server) -> str:
    return run(sys.executable, f"examples/{name}", server.url)


def test_the_client_ends_with_the_message_when_it_is_refused() -> None:
    refusal = {"type": "error", "status": 404, "error": {"message": "There is no such model."}}

    def refuse(socket: ServerConnection) -> None:
        socket.recv()
        socket.send(json.dumps(refusal))
        for _ in socket:  # until the client leaves
            pass

    with serve(refuse, "127.0.0.1", 0) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        port = listening.socket.getsockname()[1]
        command = [sys.executable, "examples/client.py", f"http://127.0.0.1:{port}"]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=ANSWER_S)
    assert (result.returncode, result.stderr) == (1, "There is no such model.\n")


@pytest.mark.engine
@pytest.mark.slow
class TestAgainstAServer:
    """The server of all tests, which starts a killed worker again."""

    def test_the_client_gets_thoughts_and_answer(self, server: Server) -> None:
        text = run_example("client.py", server)
        assert "623" in text
        assert re.search(r"\n\d+ tokens\n$", text)

    def test_a_dropped_answer_is_resumed_without_a_gap(self, server: Server) -> None:
        assert "the whole answer: 'The" in run_example("resume.py", server)

    def test_the_pace_changes(self, server: Server) -> None:
        text = run_example("pace.py", server)
        slow_s, fast_s = map(float, re.findall(r"[\d.]+(?= s)", text))
        assert slow_s > 2 * fast_s

    @needs("curl", package="curl")
    def test_curl_asks_twice(self, server: Server) -> None:
        text = run("sh", "examples/curl.sh", server.url)
        assert '"object":"chat.completion"' in text
        assert "event: response.completed" in text

    @pytest.mark.long
    def test_a_killed_worker_does_not_end_an_answer(self, server: Server) -> None:
        text = run_example("kill_a_worker.py", server)
        assert re.search(r"--- killed worker-\d", text)
        assert re.search(r"--- completed on worker-\d, failovers: 1 ---", text)


def test_pages_show_examples_as_they_are() -> None:
    """A block below `<!-- examples/NAME -->` is that file, and every file is shown somewhere."""
    shown = set()
    for page in guide_pages():
        for fence in fences((ROOT / page).read_text(encoding="utf-8")):
            if marker := re.fullmatch(r"<!-- (examples/\S+) -->", fence.comment):
                file = (ROOT / marker[1]).read_text(encoding="utf-8")
                assert fence.text == file, f"{page}:{fence.line}"
                shown.add(marker[1])
    files = {str(path.relative_to(ROOT)) for path in EXAMPLES.iterdir() if path.is_file()}
    assert shown == files


@pytest.mark.engine
@pytest.mark.long
def test_the_scheduler_runs_in_vllms_own_server(tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "server.log"
    flags = ("--port", str(port), "--max-model-len=1024", "--kv-cache-memory-bytes=67108864")
    command = ("sh", "examples/stock_vllm.sh", "models/tiny-reasoner", *flags, "--enforce-eager")
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}", log)
        body = {"model": "models/tiny-reasoner", "prompt": "What is 2 + 2?", "max_tokens": 8}
        assert '"finish_reason"' in call(f"http://127.0.0.1:{port}/v1/completions", body)
    finally:
        process.terminate()
        process.wait(60)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline_s = time.monotonic() + ANSWER_S
    while True:
        try:
            call(f"{url}/health")
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline_s, log.read_text(encoding="utf-8")
            time.sleep(0.5)
