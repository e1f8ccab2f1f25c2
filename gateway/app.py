"""The gateway process: routes, error bodies, start and shutdown.

It starts the store, then HTTP (so that ``/health`` answers at once), then workers. To shut down, it
refuses new requests, lets running ones end, closes sockets (1001), ends workers and closes the
store.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from gateway.api import cors, refusals, sse
from gateway.api.admin import (
    drain_instance,
    get_instance,
    get_placement,
    get_policy,
    list_instances,
    may_operate,
    set_placement,
    set_policy,
    undrain_instance,
)
from gateway.api.auth import is_local
from gateway.api.chat import create_chat_completion
from gateway.api.connections import HEADER_BYTES, HttpRunner
from gateway.api.documents.routes import add_documents
from gateway.api.headers import request_ids
from gateway.api.headers.rate_limits import rate_headers
from gateway.api.http import CALLER, SERVICE, caller_of, owner_of
from gateway.api.messages import count_tokens, create_message
from gateway.api.pages.routes import add_pages
from gateway.api.plain.completions import create_completion
from gateway.api.plain.tokens import detokenize, tokenize
from gateway.api.refusals import json_response
from gateway.api.responses import conversations
from gateway.api.responses.routes import (
    SOCKETS,
    cancel_response,
    count_input,
    create_response,
    delete_response,
    get_response,
    list_input_items,
    open_socket,
)
from gateway.api.websocket import WebSocketConnection
from gateway.collector import FullCollections
from gateway.config import Config
from gateway.descriptors import DescriptorWatch
from gateway.launchers.base import Launcher, make_launcher
from gateway.ops.demo.routes import DEMO, add_demo
from gateway.ops.places import make_place_check, operations_here
from gateway.ops.socket import add_operations
from gateway.schemas.errors import ApiError, Unavailable
from gateway.scrape import own_version
from gateway.service import ResponseService
from gateway.store import ResponseStore, StoreError, StoreUnusable

log = structlog.get_logger()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Connections that may wait to be accepted. With a small number, a busy gateway resets clients that
# connect at the same time. The kernel may allow less (`net.core.somaxconn`).
_BACKLOG = 4096
_GOODBYE_S = 2.0  # time for all WebSocket clients together to answer the close frame
_STRAGGLER_S = 30.0  # how long "Ready" waits for the other workers after the first one
_CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "manifest-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def make_app(service: ResponseService) -> web.Application:
    """Make the application: all routes to one service."""
    server = service.config.server
    app = web.Application(
        middlewares=[
            request_ids.name_request,
            _errors,
            make_place_check(server),
            cors.make_middleware(server),
        ]
    )
    app[SERVICE] = service
    app[SOCKETS] = set()
    app.add_routes(
        [
            web.post("/v1/responses", create_response),
            # A HEAD request would get a body here.
            web.get("/v1/responses", open_socket, allow_head=False),
            # Without this, the name would be taken for an id, with "method not allowed".
            web.post("/v1/responses/compact", _not_here),
            web.post("/v1/responses/input_tokens", count_input),
            web.get("/v1/responses/{response_id}", get_response, allow_head=False),
            web.get("/v1/responses/{response_id}/input_items", list_input_items, allow_head=False),
            web.post("/v1/responses/{response_id}/cancel", cancel_response),
            web.delete("/v1/responses/{response_id}", delete_response),
            *conversations.ROUTES,
            web.post("/v1/chat/completions", create_chat_completion),
            web.post("/v1/completions", create_completion),
            web.post("/tokenize", tokenize),
            web.post("/detokenize", detokenize),
            web.post("/v1/messages", create_message),
            web.post("/v1/messages/count_tokens", count_tokens),
            web.get("/v1/models", _models),
            web.get("/v1/models/{model:.+}", _model),
            web.get("/admin/instances", list_instances),
            web.get("/admin/instances/{instance_id}", get_instance),
            web.post("/admin/instances/{instance_id}/drain", drain_instance),
            web.post("/admin/instances/{instance_id}/undrain", undrain_instance),
            web.get("/admin/policy", get_policy),
            web.post("/admin/policy", set_policy),
            web.get("/admin/placement", get_placement),
            web.post("/admin/placement", set_placement),
            web.get("/version", _version),
            web.get("/health", _health),
            web.get("/ready", _ready),
            web.get("/metrics", _metrics),
        ]
    )
    add_pages(app)
    add_operations(app)
    add_demo(app)
    add_documents(app)

    async def allow_origin(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.extend(cors.allow_origin(server, request.headers))

    app.on_response_prepare.append(_security_headers)
    app.on_response_prepare.append(allow_origin)
    app.on_response_prepare.append(_facts_of_request)
    return app


def make_runner(service: ResponseService, watch: DescriptorWatch | None = None) -> web.AppRunner:
    """Make the HTTP server of `make_app`, which still needs a site."""
    config = service.config.server

    def on_refusal(error: ApiError, method: str, path: str | None) -> None:
        refusals.note(service.metrics, error, method=method, path=path)

    runner = HttpRunner(
        make_app(service),
        header_timeout_s=config.header_timeout_s,
        send_timeout_s=config.send_timeout_s,
        on_refusal=on_refusal,
        watch=watch or DescriptorWatch(),
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,  # a client that leaves ends the work for it
        shutdown_timeout=1.0,
        auto_decompress=False,  # aiohttp's has no bound and blocks the loop; see `encodings`
        max_line_size=HEADER_BYTES,
        max_field_size=HEADER_BYTES,
        # How long the rest of a body is read, so that the client gets the response.
        lingering_time=min(10.0, config.body_timeout_s),
    )
    service.releases.after = runner.outbox.write
    return runner


def make_site(runner: web.AppRunner, host: str, port: int) -> web.TCPSite:
    """Make the address that the runner's server listens on once it is started."""
    return web.TCPSite(runner, host, port, backlog=_BACKLOG)


async def serve(config: Config, announce: Callable[[str], None]) -> None:
    """Run the gateway and its workers until SIGINT or SIGTERM.

    :param announce: called with one line for the terminal at each stage.
    :raises OSError: the address cannot be bound.
    :raises gateway.store.StoreUnusable: ``config.store_place`` cannot be used.
    """
    stopping, forced = asyncio.Event(), asyncio.Event()
    _on_signals(stopping, forced)
    async with AsyncExitStack() as stack:
        store = ResponseStore(config.store_place)
        await store.open()
        stack.push_async_callback(store.close)
        service = ResponseService(config, store)
        try:
            await service.keys.refresh()
        except StoreError as error:
            raise StoreUnusable(config.store_place, "its API keys cannot be read") from error
        for upkeep in (
            store.keep_clean(config.store.retention_days * 86400),
            service.keys.keep(),
        ):
            stack.push_async_callback(_cancelled, asyncio.create_task(upkeep))
        collections = FullCollections(
            service.metrics.pauses,
            service.metrics.count_unfinished,
            gap_s=service.releases.gap_s,
        )
        stack.enter_context(collections.taking_over())
        collecting = asyncio.create_task(collections.run())
        stack.push_async_callback(_cancelled, collecting)
        watch = DescriptorWatch()
        asyncio.get_running_loop().set_exception_handler(watch.loop_failed)
        runner = make_runner(service, watch)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        server = config.server
        await make_site(runner, server.host, server.port).start()
        port = runner.addresses[0][1]
        if server.operations_port:
            await make_site(runner, server.operations_host, server.operations_port).start()
        socket_dir = Path(tempfile.mkdtemp(prefix="pascal-"))
        stack.callback(shutil.rmtree, socket_dir, ignore_errors=True)

        launcher = make_launcher(config, service.cluster, socket_dir)
        workers = asyncio.create_task(launcher.run())
        stack.push_async_callback(_cancelled, workers)
        service.maintenance.launcher = launcher
        service.metrics.watch_launcher(launcher)
        url = _url(config.server.host, port)
        runner.app[DEMO].begin(url)
        operations_url = url
        if server.operations_port:
            operations_url = _url(server.operations_host, server.operations_port)
        urls = (url, operations_url)
        await _until_stopped(launcher, service, collections, stopping, workers, urls, announce)

        await runner.app[DEMO].close()
        announce("Shutting down: running requests may finish (Ctrl-C again to force).")
        drained = asyncio.create_task(service.drain(config.server.shutdown_timeout_s))
        await _first_of(drained, asyncio.create_task(forced.wait()))
        service.fail_all()
        await _close_sockets(runner.app[SOCKETS])
        await service.close()
    announce("Stopped.")


async def _until_stopped(
    launcher: Launcher,
    service: ResponseService,
    collections: FullCollections,
    stopping: asyncio.Event,
    workers: asyncio.Task[None],
    urls: tuple[str, str],
    announce: Callable[[str], None],
) -> None:
    """Announce the addresses, for clients and for operators, when an instance can serve."""
    count = launcher.count
    announce(launcher.describe())
    started_s = time.monotonic()
    stop = asyncio.create_task(stopping.wait())
    for wanted, timeout_s in ((1, None), (count, _STRAGGLER_S)):
        ready = asyncio.create_task(service.cluster.wait_for_instances(wanted))
        await _first_of(stop, workers, ready, timeout_s=timeout_s, cancel=(ready,))
    if service.cluster.instances and not stop.done():
        there = len(service.cluster.instances)
        missing = "" if there == count else f" with {there} of {count} workers, the others follow"
        collections.freeze()
        announce(f"Ready after {time.monotonic() - started_s:.0f} s{missing}.")
        url, operations_url = urls
        announce(f"  Chat     {url}/")
        announce(f"  API      {url}/v1   (OpenAI: responses, chat; Anthropic: messages)")
        announce(f"  Metrics  {operations_url}/metrics")
        announce(f"  Live     {operations_url}/ops")
    await _first_of(stop, workers, cancel=(stop,))
    if workers.done():
        workers.result()


def _url(host: str, port: int) -> str:
    """The address of this gateway for clients on this machine."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"


async def _first_of(
    *tasks: asyncio.Task[Any],
    timeout_s: float | None = None,
    cancel: tuple[asyncio.Task[Any], ...] = (),
) -> None:
    await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task in cancel:
        task.cancel()


async def _close_sockets(sockets: set[WebSocketConnection]) -> None:
    """Close every socket; give up on clients that do not answer in time."""
    goodbyes = [asyncio.create_task(socket.close()) for socket in list(sockets)]
    if not goodbyes:
        return
    done, late = await asyncio.wait(goodbyes, timeout=_GOODBYE_S)
    for task in late:
        task.cancel()
    failed = [error for task in done if (error := task.exception()) is not None]
    if late or failed:
        reasons = sorted({type(error).__name__ for error in failed})
        log.info("sockets_left_at_shutdown", late=len(late), failed=len(failed), reasons=reasons)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _on_signals(stopping: asyncio.Event, forced: asyncio.Event) -> None:
    def handle() -> None:
        (forced if stopping.is_set() else stopping).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle)


# ---- small routes ---------------------------------------------------------------------------


async def _models(request: web.Request) -> web.Response:
    owner_of(request)
    response = json_response({"object": "list", "data": [_model_card(request)]})
    operations = operations_here(request, request.app[SERVICE].config.server)
    if operations and may_operate(request):  # so that the chat page can link to the operations page
        response.headers["X-Pascal-Operations"] = "allowed"
    return response


async def _model(request: web.Request) -> web.Response:
    owner_of(request)
    request.app[SERVICE].check_model(request.match_info["model"])
    return json_response(_model_card(request))


def _model_card(request: web.Request) -> dict[str, Any]:
    service = request.app[SERVICE]
    lengths = [i.welcome.max_model_len for i in service.cluster.instances.values()]
    return {
        "id": service.config.served_model_name,
        "object": "model",
        "created": 0,
        "owned_by": "pascal-serve",
        "max_model_len": min(lengths, default=None),
        "engines": _engines(request),
    }


def _engines(request: web.Request) -> list[str]:
    instances = request.app[SERVICE].cluster.instances.values()
    return sorted({instance.welcome.engine for instance in instances})


async def _not_here(_: web.Request) -> web.Response:
    raise web.HTTPNotFound


async def _health(_: web.Request) -> web.Response:
    return json_response({"status": "ok"})


async def _version(request: web.Request) -> web.Response:
    return json_response({"version": own_version(), "engines": _engines(request)})


async def _ready(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    document = {
        "ready": service.ready,
        "draining": service.draining,
        "instances": sorted(service.cluster.instances),
    }
    return json_response(document, status=200 if service.ready else 503)


async def _metrics(request: web.Request) -> web.Response:
    """All metrics. Those of stored keys are not for everybody: then a key is asked for."""
    stored = request.app[SERVICE].keys.stored
    if stored and not is_local(request.remote, request.headers):
        caller_of(request, "operations")
    return web.Response(
        body=request.app[SERVICE].metrics.render(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


# ---- what holds for all routes --------------------------------------------------------------


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Convert errors to responses in OpenAI's form."""
    try:
        return await handler(request)
    except ApiError as error:
        return _refuse(request, error)
    except web.HTTPException as error:
        response = _refuse(request, refusals.of_http(error, request))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except ConnectionError:
        log.info("client_left", path=request.path)
        begun = _begun(request)
        return web.Response() if begun is None else begun
    except Exception:
        log.exception("request_failed", path=request.path)
        begun = _begun(request)
        if begun is not None:
            if request.transport is not None:
                request.transport.abort()  # a clean end would look like a complete response
            return begun
        broken = ApiError("Internal error.", code="internal_error")
        return refusals.error_response(broken, request.path)


def _begun(request: web.Request) -> web.StreamResponse | None:
    """Return the event stream whose headers were already sent for this request."""
    begun: web.StreamResponse | None = request.get(sse.BEGUN, None)
    return begun


def _refuse(request: web.Request, error: ApiError) -> web.Response:
    service = request.app[SERVICE]
    refusals.note(service.metrics, error, method=request.method, path=request.rel_url.raw_path)
    response = refusals.error_response(error, request.path)
    if isinstance(error, Unavailable) and error.code != "instance_lost":
        # By it agents outlive the restart of an instance. A request that loses one instance after
        # the other may be what crashes them.
        response.headers["Retry-After"] = str(service.config.limits.retry_after_s)
    return response


async def _facts_of_request(request: web.Request, response: web.StreamResponse) -> None:
    """Its id, and what is left of the limits of its key."""
    of_messages = request.path.startswith(refusals.MESSAGES_PATH)
    if request_ids.REQUEST_ID in request:
        response.headers[request_ids.HEADER] = request[request_ids.REQUEST_ID]
        if of_messages:
            response.headers[request_ids.OF_MESSAGES] = request[request_ids.REQUEST_ID]
    key = request[CALLER].key if CALLER in request else None
    if key is not None:
        standings = request.app[SERVICE].keys.standings(key)
        response.headers.update(rate_headers(standings, messages=of_messages))


async def _security_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault("Content-Security-Policy", _CONTENT_SECURITY_POLICY)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
