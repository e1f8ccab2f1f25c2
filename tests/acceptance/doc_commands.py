"""``python -m tests.acceptance.doc_commands``: what the pages tell people to type, typed.

Clones HEAD, runs `make setup` in the clone, and then every shell block of the README, the tutorial,
CONTRIBUTING and the how-to guides, page by page, except those that are marked; `doc_blocks` says
how. Each block has to end with status 0. The servers that a page starts end with the page, and the
clone is removed at the end. The ports of the pages have to be free: the commands run as they stand.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.acceptance.doc_blocks import Block, blocks_of, guide_pages
from tests.acceptance.fresh import READY_S, ROOT, STOP_S, environment, make, say

BLOCK_S = 900.0  # the longest takes three minutes on two busy cores
PORTS = (8080, 8000)


class CommandError(Exception):
    """A block that failed, hung, or left something behind."""


def check_ports() -> None:
    """Raises CommandError if another program has a port that the pages use."""
    for port in PORTS:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                raise CommandError(f"port {port} is in use, and the pages use it") from None


def run_block(block: Block, clone: Path, env: Mapping[str, str]) -> None:
    """Run one block to its end. Raises CommandError."""
    process = _start(block, clone, env, None)
    try:
        status = process.wait(BLOCK_S)
    except subprocess.TimeoutExpired:
        raise CommandError(f"{block}: not done after {BLOCK_S:g} s") from None
    finally:
        _end_group(process)
    if status:
        raise CommandError(f"{block}: status {status}:\n{block.text}")


@contextmanager
def background(block: Block, clone: Path, env: Mapping[str, str]) -> Iterator[None]:
    """Start a server and wait until it serves; it ends as by Ctrl-C. Raises CommandError."""
    log = clone / ".pascal-docs.log"
    process = _start(block, clone, env, log)
    try:
        _wait_until_ready(block, process, log)
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                say(f"{block}: it did not stop within {STOP_S:g} s of Ctrl-C, and is killed")
        _end_group(process)


def _start(
    block: Block, clone: Path, env: Mapping[str, str], log: Path | None
) -> subprocess.Popen[bytes]:
    output = None if log is None else log.open("wb")
    try:
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=clone,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        if output is not None:
            output.close()


def _wait_until_ready(block: Block, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s:
        if _answers(block.url) if block.url else re.search(r"Chat +http", log.read_text("utf-8")):
            return
        if process.poll() is not None:
            raise CommandError(f"{block}: ended:\n{log.read_text('utf-8')[-3000:]}")
        time.sleep(0.2)
    raise CommandError(f"{block}: does not serve after {READY_S:g} s")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End whatever a block has left in its process group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def run_page(page: str, clone: Path, env: Mapping[str, str]) -> int:
    """Run the blocks of one page; the number of those that ran. Raises CommandError."""
    ran = 0
    with ExitStack() as servers:
        for block in blocks_of(page, (clone / page).read_text(encoding="utf-8")):
            if block.not_run:
                say(f"skip  {block}: {block.not_run}")
                continue
            began_s = time.monotonic()
            if block.background:
                servers.enter_context(background(block, clone, env))
            else:
                run_block(block, clone, env)
            say(f"ok    {block}: {time.monotonic() - began_s:.0f} s")
            ran += 1
    # What a page writes, such as a report, is not there for the next one.
    subprocess.run(["git", "clean", "-fdq"], cwd=clone, check=True)
    return ran


def run(pages: Sequence[str], python: str) -> int:
    """Clone, set up, and run the pages; the number of blocks that ran. Raises CommandError."""
    folder = ROOT / ".acceptance" / "doc-commands"
    shutil.rmtree(folder, ignore_errors=True)
    clone = folder / "clone"
    folder.mkdir(parents=True)
    check_ports()
    try:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        env = environment(None, python)
        make(clone, "setup", env)
        return sum(run_page(page, clone, env) for page in pages)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """0 if every block succeeded."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.acceptance.doc_commands",
        description="Run the commands of the documentation in a fresh clone.",
    )
    parser.add_argument("--pages", nargs="+", metavar="PAGE", choices=guide_pages())
    args = parser.parse_args()
    pages = args.pages or guide_pages()
    python = sys._base_executable  # type: ignore[attr-defined]
    try:
        ran = run(pages, python)
    except (CommandError, OSError, subprocess.CalledProcessError) as error:
        say(f"error: {error}")
        return 1
    say(f"{ran} blocks of {len(pages)} pages run as they stand")
    return 0


if __name__ == "__main__":
    sys.exit(main())
