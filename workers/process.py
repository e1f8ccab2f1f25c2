"""The worker process: ``python -m workers.process --settings JSON``, or ``-`` to read it.

Sets up the process: cores, environment, logging, signals, start and end. The order matters. Cores
and environment are set before torch and vLLM are imported. The worker listens only when its engine
can serve, so that a connection means readiness.

How it ends, within seconds whatever the engine is doing:
    SIGTERM                     cancels requests, closes the connection, exits with 0
    SIGINT                      does the same; ignored with a launcher's pipe, since Ctrl-C reaches
                                the launcher as well, which then decides
    the launcher's pipe closes  the launcher is dead: kills everything at once
    the gateway disconnects     cancels requests and waits for the next gateway
    the engine fails            reports the failure for every request, exits with 1
    it cannot start             logs `worker_failed` with the cause as its last line, exits with 1
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from typing import Any

import msgspec
import structlog

from workers import logs, loop
from workers.errors import WorkerError
from workers.settings import WorkerSettings

_log = structlog.get_logger()

_LAST_WORDS_S = 1.0  # time for the gateway to read that the engine failed
# Longest time to stop, without the time above. A launcher waits 3 s.
_STOP_S = 2.8


def main() -> None:
    """Parse the arguments and run until a signal, a failure or the end of the launcher."""
    parser = argparse.ArgumentParser(prog="python -m workers.process", description=__doc__)
    parser.add_argument(
        "--settings", required=True, help="WorkerSettings as JSON; -: from standard input"
    )
    arguments = parser.parse_args()
    text = sys.stdin.read() if arguments.settings == "-" else arguments.settings
    try:
        settings = msgspec.json.decode(text, type=WorkerSettings)
    except msgspec.MsgspecError as error:
        parser.error(f"--settings: {error}")
    if settings.listen.startswith("tcp:") and not settings.token:
        parser.error("--settings: token is required for a TCP address")
    prepare(settings)
    from workers.link import check_free

    try:
        # Checks that need neither vLLM nor the model.
        check_model(settings.model)
        check_free(settings.listen)
        status = loop.run(run(settings))
    except Exception as error:  # noqa: BLE001 (logged, and the process ends)
        _log.error("worker_failed", reason=logs.start_failure(error), exc_info=True)
        status = 1
    end(status)


def end(status: int) -> None:
    """End this process and its children at once."""
    logs.forget_causes()
    for child in multiprocessing.active_children():
        child.kill()
    # Not sys.exit: it would take seconds to unload torch and vLLM, for no benefit.
    with contextlib.suppress(OSError):  # a full disk must not keep the process
        sys.stderr.flush()
    os._exit(status)


# One of them is enough here; vLLM checks the contents when it loads the tokenizer.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "tekken.json",
)


def check_model(model: str) -> None:
    """:raises WorkerError: ``model`` is a path, and no complete model is there."""
    if os.path.isabs(model) or model.startswith("."):
        if not os.path.isdir(model):
            raise WorkerError(f"model: {model} is not a folder")
        if not os.path.isfile(os.path.join(model, "config.json")):
            raise WorkerError(f"model: the folder {model} has no config.json")
        if not any(os.path.isfile(os.path.join(model, name)) for name in _TOKENIZER_FILES):
            raise WorkerError(f"model: the folder {model} has no tokenizer (tokenizer.json)")


def prepare(settings: WorkerSettings) -> None:
    """Set up this process; must run before torch or vllm is imported."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # so that processes of the engine can be killed together with this one
    signal.signal(signal.SIGTERM, lambda *_: kill_all())  # until the engine is loaded
    if settings.parent_fd is None:
        signal.signal(signal.SIGINT, lambda *_: kill_all())
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(logging.INFO, settings.instance_id)
    scheme, _, path = settings.listen.partition(":")
    # In the folder of the socket, which the launcher deletes even if this process is killed.
    folder = os.path.dirname(path) if scheme == "unix" else None
    logs.prepare_engine_logs(
        settings.instance_id, processes=settings.engine == "async", folder=folder
    )
    if settings.parent_fd is not None:
        watch_parent(settings.parent_fd, settings.listen)
    if settings.cpu_cores:
        os.sched_setaffinity(0, settings.cpu_cores)
    os.environ.update(surroundings(settings))


def surroundings(settings: WorkerSettings) -> dict[str, str]:
    """Return the variables that must be set before torch or vllm is imported."""
    defaults = {
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "NIXL_LOG_LEVEL": "WARN",
        # workers.engine.forced_lengths uses the interface of this model runner.
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        "TOKENIZERS_PARALLELISM": "false",
        # Its warning after the end of this process would be the last line of the log.
        "PYTHONWARNINGS": "ignore::UserWarning:multiprocessing.resource_tracker",
    }
    if os.path.isdir(settings.model):
        defaults["HF_HUB_OFFLINE"] = "1"
    if settings.engine == "inprocess":
        # One thread for one core: OpenMP threads that wait for each other cost more than they gain,
        # above all when several workers share a machine.
        defaults["OMP_NUM_THREADS"] = "1"
    variables = {name: os.environ.get(name, value) for name, value in defaults.items()}
    if settings.engine == "inprocess":
        variables["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return variables


def watch_parent(parent_fd: int, listen: str) -> None:
    """Kill this process and all that it started when the other end of the pipe closes."""

    def watch() -> None:
        try:
            while os.read(parent_fd, 1):
                pass
            scheme, _, path = listen.partition(":")
            if scheme == "unix" and os.path.exists(path):
                os.unlink(path)
        finally:
            kill_all()

    os.set_blocking(parent_fd, True)
    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def kill_all() -> None:
    """Kill this process and all that it started, which share its process group."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


async def run(settings: WorkerSettings) -> int:
    """Load the engine and serve; :return: the exit status."""
    # Imported only now: `prepare` must come first.
    from workers.engine.interface import Engine
    from workers.engine.vllm_config import vllm_config
    from workers.formats.form import Format, describe
    from workers.link import Link, listening
    from workers.messages import PROTOCOL, Welcome
    from workers.requests.chat_template import ChatRenderer
    from workers.requests.service import Service

    config = vllm_config(settings)
    engine: Engine
    if settings.engine == "inprocess":
        from workers.engine.in_process import InProcessEngine

        engine = InProcessEngine(config)
    else:
        from workers.engine.async_llm import AsyncEngine

        engine = await AsyncEngine.load(config)
    facts = engine.facts
    form = Format.of(settings, config)
    renderer = ChatRenderer(form, facts.max_model_len)
    for line in describe(form):
        _log.info("format_chosen", what=line)
    welcome = Welcome(
        protocol=PROTOCOL,
        instance_id=settings.instance_id,
        pid=os.getpid(),
        model=settings.served_model_name,
        max_model_len=facts.max_model_len,
        block_size=facts.block_size,
        kv_blocks_total=facts.kv_blocks_total,
        engine=facts.name,
        policy=settings.policy,
        endpoint=facts.endpoint,
    )
    logs.forget_causes()
    stop = asyncio.Event()
    failures: list[str] = []

    def failed(reason: str) -> None:
        failures.append(reason)
        stop.set()

    events = asyncio.get_running_loop()
    events.set_exception_handler(_log_callback_failure)
    events.add_signal_handler(signal.SIGTERM, stop.set)
    if settings.parent_fd is None:
        events.add_signal_handler(signal.SIGINT, stop.set)
    async with asyncio.TaskGroup() as tasks:
        service = Service(engine, renderer, tasks, failed)
        engine.start(service)
        link = Link(service, welcome, settings.token, settings.heartbeat_s)
        async with listening(settings.listen, link):
            _log.info("worker_started", engine=facts.name, kv_blocks=facts.kv_blocks_total)
            await stop.wait()
            if failures:
                await asyncio.sleep(_LAST_WORDS_S)
            bound = threading.Timer(_STOP_S, _stop_now, (1 if failures else 0,))
            bound.daemon = True
            bound.start()
            service.close()
        await engine.close()
    _log.info("worker_stopped", failures=failures)
    bound.cancel()
    return 1 if failures else 0


def _stop_now(status: int) -> None:
    _log.error("worker_stop_timed_out", seconds=_STOP_S)
    end(status)


def _log_callback_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log the failure of a callback, which concerns one request; the loop goes on."""
    error = context.get("exception")
    _log.error(
        "callback_failed",
        reason=context.get("message"),
        kind=None if error is None else type(error).__name__,
    )


if __name__ == "__main__":
    main()
