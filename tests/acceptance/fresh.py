"""``python -m tests.acceptance.fresh --name N``: a clone of HEAD, used as a newcomer does.

`make setup`, then `make serve` on a free port with its two workers; a chat over HTTP; a worker that
is drained under long requests, which shows whether KV moves between engines here. With ``--test``
`make test` follows. The clone is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
READY_S = 600.0  # from the start of `make serve` to its address; this and the next guard a hang
ANSWER_S = 600.0
STOP_S = 120.0
MOVING = 4  # requests that run while a worker is drained
LONG = {"reasoning_tokens": 100, "answer_tokens": 800}


def environment(home: Path | None, python: str) -> dict[str, str]:
    """The variables of a newcomer: none of the project's, and `python` first on the PATH."""
    # ARGS: what `make acceptance` was given is not for the make inside.
    ours = ("PASCAL_", "VIRTUAL_ENV", "PYTHONPATH", "MAKE", "MFLAGS", "ARGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    # A version manager's shims may depend on the home folder: the Python itself does not.
    kept["PATH"] = os.pathsep.join([str(Path(python).parent), kept["PATH"]])
    kept["PYTHON"] = python
    if home is not None:
        kept["HOME"] = str(home)
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "UV_CACHE_DIR"):
            kept.pop(name, None)
    return kept


def say(text: str) -> None:
    """One line of the log."""
    print(text, flush=True)


def make(clone: Path, target: str, env: Mapping[str, str]) -> None:
    """Run one target. Raises CalledProcessError if it fails."""
    began_s = time.monotonic()
    subprocess.run(["make", target], cwd=clone, env=env, check=True)
    say(f"make {target}: {time.monotonic() - began_s:.0f} s")


@contextmanager
def serving(clone: Path, env: Mapping[str, str]) -> Iterator[str]:
    """``make serve`` on a free port; its address.

    Raises RuntimeError if it does not serve, or does not stop.
    """
    log = clone / "serve.log"
    arguments = f"--port 0 --set server.state_dir={clone / 'state'}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["make", "serve", f"ARGS={arguments}"],
            cwd=clone,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _address(process, log)
    finally:
        try:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does in a terminal
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise RuntimeError(f"it did not stop within {STOP_S:g} s of Ctrl-C") from None
        finally:
            say(log.read_text(encoding="utf-8", errors="replace"))


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end_s = time.monotonic() + READY_S
    while time.monotonic() < end_s:
        if found := re.search(r"Chat +(http://\S+)/\n", log.read_text(errors="replace")):
            return found[1]
        if process.poll() is not None:
            raise RuntimeError(f"`make serve` ended with status {process.returncode}")
        time.sleep(0.2)
    raise RuntimeError(f"`make serve` did not serve within {READY_S:g} s")


def post(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The decoded answer to a POST of JSON. Raises HTTPError unless it is a success."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
        return dict(json.load(answer))


def chat(url: str) -> str:
    """The answer of the embedded model to a sum. Raises RuntimeError if it is wrong."""
    messages = [{"role": "user", "content": "What is 348 + 275?"}]
    body = {"model": "tiny-reasoner", "messages": messages, "temperature": 0}
    text = post(f"{url}/v1/chat/completions", body)["choices"][0]["message"]["content"]
    if "623" not in text:
        raise RuntimeError(f"348 + 275 is 623, the model says: {text!r}")
    return str(text)


def drain(url: str) -> tuple[int, int]:
    """Restart a worker under long requests: how many changed engines, and how many with their KV.

    Raises RuntimeError if one of them is not complete.
    """

    def ask(number: int) -> dict[str, Any]:
        body = {
            "input": f"What is {number} + 275?",
            "temperature": 0,
            "pacing": False,
            "forced_lengths": LONG,
        }
        return post(f"{url}/v1/responses", body)

    with ThreadPoolExecutor(MOVING) as threads:
        running = [threads.submit(ask, number) for number in range(MOVING)]
        end_s = time.monotonic() + ANSWER_S
        while not _metric(url, 'pascal_kv_blocks_used{instance="worker-1",phase="answering"'):
            if time.monotonic() > end_s:
                raise RuntimeError("no request came to worker-1")
            time.sleep(0.05)
        post(f"{url}/admin/instances/worker-1/drain", {"restart": True})
        responses = [one.result() for one in running]
    if unfinished := [one["id"] for one in responses if one["status"] != "completed"]:
        raise RuntimeError(f"not complete after the drain: {unfinished}")
    moved = sum(one["migrations"] + one["failovers"] > 0 for one in responses)
    return moved, int(_metric(url, 'pascal_migrations_total{outcome="moved"'))


def _metric(url: str, name: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=ANSWER_S) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def run(name: str, python: str, empty_home: bool, test: bool) -> None:
    """All steps. An error of a step is raised."""
    folder = ROOT / ".acceptance" / name
    shutil.rmtree(folder, ignore_errors=True)
    clone, home = folder / "clone", folder / "home"
    home.mkdir(parents=True)
    try:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        env = environment(home if empty_home else None, python)
        make(clone, "setup", env)
        with serving(clone, env) as url:
            say(f"chat: {' '.join(chat(url).split())}")
            moved, with_kv = drain(url)
        if test:
            make(clone, "test", env)
        kv = "with their KV" if with_kv else "computed again: NIXL does not load here"
        version = subprocess.check_output([clone / ".venv/bin/python", "-V"], text=True).strip()
        stamp = json.loads((clone / ".venv/pascal-setup.json").read_text(encoding="utf-8"))
        say(f"{version}, lock {stamp['lock']}: chats; {moved} requests changed workers, {kv}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """0 if every step succeeded."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.fresh", description=__doc__)
    parser.add_argument("--name", required=True, help="of the folder in .acceptance/")
    parser.add_argument("--python", default=sys._base_executable, help="path of the interpreter")  # type: ignore[attr-defined]
    parser.add_argument("--empty-home", action="store_true", help="no cache, no configuration")
    parser.add_argument("--test", action="store_true", help="`make test` at the end")
    args = parser.parse_args()
    changed = subprocess.check_output(["git", "status", "--porcelain"], cwd=ROOT, text=True)
    if changed:
        say("note: HEAD is cloned; changes that are not committed are not in it")
    try:
        run(args.name, args.python, args.empty_home, args.test)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
