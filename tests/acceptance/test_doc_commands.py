"""Every shell block of the guides is run or marked, and the runner notices what fails."""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

import pytest

from tests.acceptance import doc_commands
from tests.acceptance.doc_blocks import (
    ROOT,
    Block,
    MarkError,
    all_blocks,
    blocks_of,
    fences,
    guide_pages,
)
from tests.acceptance.doc_commands import CommandError, background, run_block
from tests.support.server import is_alive

COMMAND = re.compile(
    r"^(\$ )?(\S+=\S+ )*(\.venv/bin/\S+|make|pascal|curl|kubectl|podman|uv|git|openssl|python\S*) ",
    re.MULTILINE,
)
MARKED = 36  # at most: a block that can run should


def test_most_blocks_are_run_and_the_others_say_why() -> None:
    blocks = all_blocks()
    marked = [block for block in blocks if block.not_run]
    assert len(marked) <= MARKED, "\n".join(map(str, marked))
    assert len(blocks) - len(marked) > MARKED
    assert all(len(block.not_run) >= 10 for block in marked)


def test_commands_are_in_shell_blocks_alone() -> None:
    elsewhere = []
    for page in guide_pages():
        for fence in fences((ROOT / page).read_text(encoding="utf-8")):
            shown = fence.language == "sh" or fence.comment.startswith("<!-- examples/")
            if not shown and COMMAND.search(fence.text):
                elsewhere.append(f"{page}:{fence.line}: {fence.text}")
    assert not elsewhere, "\n".join(elsewhere)


def test_no_page_leaves_the_checkout_or_needs_another_network() -> None:
    for block in all_blocks():
        if not block.not_run:
            hosts = re.findall(r"https?://([^/:\s]+)", block.text)
            assert set(hosts) <= {"127.0.0.1"}, str(block)
            assert not re.search(r"(^|\s)(sudo|rm|cd|~/|/)", block.text), str(block)


def test_marks_are_read() -> None:
    text = """
```sh
first
```

<!-- not run: needs GPUs -->
```sh
second
```

<!-- in the background -->
```sh
third
```

<!-- in the background: until http://127.0.0.1:1/health answers -->
```sh
fourth
```

```text
output
```
"""
    url = "http://127.0.0.1:1/health"
    assert blocks_of("page.md", text) == [
        Block("page.md", 3, "first\n"),
        Block("page.md", 8, "second\n", not_run="needs GPUs"),
        Block("page.md", 13, "third\n", background=True),
        Block("page.md", 18, "fourth\n", background=True, url=url),
    ]


@pytest.mark.parametrize("mark", ["not run", "not run: ", "background", "examples/client.py"])
def test_another_comment_above_a_block_is_an_error(mark: str) -> None:
    with pytest.raises(MarkError):
        blocks_of("page.md", f"<!-- {mark} -->\n```sh\ntrue\n```\n")


def block(text: str, **more: object) -> Block:
    return Block("page.md", 1, text, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["false\ntrue", "false | cat", "echo $UNSET"])
def test_a_command_that_fails_in_the_middle_fails_its_block(tmp_path: Path, text: str) -> None:
    with pytest.raises(CommandError, match="status"):
        run_block(block(text), tmp_path, os.environ)


def test_what_a_block_leaves_behind_is_ended(tmp_path: Path) -> None:
    run_block(block("sleep 600 & echo $! > pid"), tmp_path, os.environ)
    pid = int((tmp_path / "pid").read_text())
    deadline_s = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_server_is_waited_for_and_interrupted(tmp_path: Path) -> None:
    text = "trap 'touch stopped; exit' INT; echo 'Chat http'; while :; do sleep 0.05; done"
    with background(block(text, background=True), tmp_path, os.environ):
        assert not (tmp_path / "stopped").exists()
    assert (tmp_path / "stopped").exists()


def test_a_server_that_ends_at_once_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(CommandError, match="no memory"),
        background(block("echo no memory; exit 1", background=True), tmp_path, os.environ),
    ):
        pass


def test_a_port_that_is_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setattr(doc_commands, "PORTS", (listener.getsockname()[1],))
        with pytest.raises(CommandError, match="in use"):
            doc_commands.check_ports()
