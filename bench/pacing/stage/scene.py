"""The processes of one measurement: the gateway, the scripted workers, the readers, and servers.

Everything is on 127.0.0.1 and on Unix sockets in a folder of its own. The gateway is the real one,
``pascal serve`` with the static launcher, and is known here by its flags, its API and its links.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bench.pacing.stage.machine import Cores
from bench.pacing.stage.scripted_worker import MODEL
from bench.pacing.stage.talk import Helper
from bench.policies.engine_process import ServerProcess
from bench.reporting.errors import BenchmarkError

_START_S = 60.0
_PER_INSTANCE = 256  # streams of one scripted instance


class Gateway(ServerProcess):
    """``pascal serve`` on a core, with scripted workers."""

    def __init__(self, folder: Path, addresses: list[str], streams: int, core: int | None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        listed = ",".join(addresses)
        settings = {
            "server.state_dir": folder / "state",
            "server.shutdown_timeout_s": 0,
            "server.log_level": "warning",
            # One transport's streams are silent while another thing is measured.
            "server.sse_keepalive_s": 3600,
            "model.served_name": MODEL,
            "launcher.kind": "static",
            "launcher.addresses": listed,
            # So that every instance gets the same number of requests.
            "placement.new": "round_robin",
            "limits.max_requests": 2 * streams + 100,
            "limits.max_readers": 2 * streams + 100,
            "limits.load": 0,  # the workers report no memory
        }
        super().__init__(
            "the gateway",
            [
                *("-m", "pascal", "serve", "--port", str(self.port)),
                *(f"--set={key}={value}" for key, value in settings.items()),
            ],
            core=core,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it at once: nobody needs its goodbyes, and its state is thrown away."""
        self._process.kill()
        super().__exit__(kind, error, traceback)

    def wait(self) -> None:
        """Return once it would serve a request; :raises ProcessFailed: if it does not."""
        give_up_s = time.monotonic() + _START_S
        while time.monotonic() < give_up_s:
            self.check()
            with contextlib.suppress(OSError):  # not yet; an HTTP error is an OSError too
                self.get("/ready")
                return
            time.sleep(0.1)
        raise self.failed(f"it was not ready within {_START_S:.0f} s")

    def get(self, path: str) -> str:
        """The body of a page."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url + path, timeout=10) as response:
            return str(response.read().decode())


@dataclass(frozen=True, slots=True)
class Scene:
    """A server, its workers and its readers, all running."""

    server: ServerProcess
    port: int
    workers: Helper
    readers: Helper


@contextlib.contextmanager
def gateway_scene(cores: Cores, streams: int) -> Iterator[Scene]:
    """Start a gateway that can carry ``streams``, with workers and readers."""
    with (
        _clients(cores, instances_for(streams)) as (folder, paths, workers, readers),
        Gateway(folder, [f"unix:{path}" for path in paths], streams, cores.server) as gateway,
    ):
        gateway.wait()
        yield Scene(gateway, gateway.port, workers, readers)


@contextlib.contextmanager
def prototype_scene(cores: Cores, streams: int) -> Iterator[Scene]:
    """The same with the prototype, which serves WebSocket alone."""
    with (
        _clients(cores, instances_for(streams)) as (_, paths, workers, readers),
        Helper("the prototype", "bench.pacing.stage.prototype", core=cores.server) as prototype,
    ):
        yield Scene(prototype, prototype.ask("start", paths=paths), workers, readers)


@contextlib.contextmanager
def _clients(cores: Cores, instances: int) -> Iterator[tuple[Path, list[str], Helper, Helper]]:
    """Workers that listen, and readers.

    :return: a folder for sockets and state, the workers' sockets, the workers, the readers.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pascal-pacing-")))
        workers = stack.enter_context(
            Helper("the workers", "bench.pacing.stage.scripted_worker", core=cores.clients)
        )
        readers = stack.enter_context(
            Helper("the readers", "bench.pacing.stage.readers", core=cores.clients)
        )
        paths = [str(folder / f"{number}.sock") for number in range(instances)]
        workers.ask("listen", paths=paths)
        yield folder, paths, workers, readers


def instances_for(streams: int) -> int:
    """How many scripted instances share so many streams."""
    return max(1, -(-streams // _PER_INSTANCE))


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on now.

    :raises BenchmarkError: if there is none.
    """
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise BenchmarkError(f"no free port on 127.0.0.1: {error.strerror}") from error
