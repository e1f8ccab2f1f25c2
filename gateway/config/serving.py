"""The tables about clients: the API, targets, resumption, admission and stored responses."""

from __future__ import annotations

from typing import Annotated, Literal

from gateway.config.table import Table, Texts
from workers.checked import about


class ServerConfig(Table, frozen=True, kw_only=True):
    """The public API: where it listens, who may use it, and how long it waits for clients."""

    host: Annotated[str, about("Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, about("Port to listen on; 0 takes any free port.", ge=0, le=65535)] = 8080
    operations_port: Annotated[
        int,
        about(
            "Port for `/metrics`, `/admin` and `/ops`, which `server.port` then does not serve; "
            "0: they are served there.",
            ge=0,
            le=65535,
        ),
    ] = 0
    operations_host: Annotated[str, about("Address of that port.")] = "127.0.0.1"
    api_keys: Annotated[
        Texts,
        about(
            "Keys with all scopes and no limits, beside those of `pascal keys`. Without any key, "
            "none is asked for.",
            secret=True,
        ),
    ] = ()
    allowed_origins: Annotated[
        Texts,
        about(
            "Web pages of other origins that may use the API, such as "
            "https://chat.example.org; * allows all."
        ),
    ] = ()
    max_message_bytes: Annotated[
        int, about("Largest request body or message; a larger one gets error 413.", ge=1024)
    ] = 1_048_576
    hard_message_bytes: Annotated[
        int,
        about(
            "A longer WebSocket message closes the connection (code 1009). It also bounds "
            "the requests that queue on one connection.",
            ge=1024,
        ),
    ] = 33_554_432
    header_timeout_s: Annotated[
        float, about("Time for a connection to begin a request and finish its headers.", ge=0.01)
    ] = 30.0
    body_timeout_s: Annotated[
        float, about("Time for a request body to be complete; then it gets error 408.", ge=0.01)
    ] = 30.0
    send_timeout_s: Annotated[
        float, about("A client that accepts no data for this long loses its connection.", ge=0.1)
    ] = 60.0
    sse_keepalive_s: Annotated[
        float,
        about(
            "Silence after which a Responses stream gets a comment line, so that proxies "
            "keep it open; 0 turns this off.",
            ge=0,
        ),
    ] = 15.0
    chat_keepalive_s: Annotated[
        float,
        about("The same for chat completions, where some clients cannot read comments.", ge=0),
    ] = 0.0
    shutdown_timeout_s: Annotated[
        float, about("How long Ctrl-C waits for running requests.", ge=0)
    ] = 10.0
    demo: Annotated[
        Literal["", "off", "calm", "busy", "pressure"],
        about(
            "The load with which a demonstration begins: operators can then change it and kill "
            "workers at /admin/demo, as after `pascal demo`; empty: no demonstration."
        ),
    ] = ""
    state_dir: Annotated[str, about("Folder of the response store and the worker logs.")] = (
        ".pascal"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], about("Least severe events to log.")
    ] = "info"


class PacingConfig(Table, frozen=True, kw_only=True):
    """Targets for requests that name none."""

    tpot_s: Annotated[
        float, about("Time per answering token; 0.1 is the pace of a fast reader.", ge=0.001, le=60)
    ] = 0.1
    ttfat_s: Annotated[
        float, about("Time from the phase boundary to the first answering token.", ge=0)
    ] = 0.25
    ttft_s: Annotated[float, about("Time from submission to the first answering token.", ge=0)] = (
        10.0
    )
    slo_qoe: Annotated[
        float, about("A response whose QoE is lower violates its SLO.", ge=0, le=1)
    ] = 0.95


class SessionConfig(Table, frozen=True, kw_only=True):
    """How long, and how much of, a response can be resumed."""

    ttl_s: Annotated[float, about("How long a finished response can be resumed.", ge=0)] = 300.0
    grace_s: Annotated[
        float,
        about(
            "How long an HTTP stream goes on after its client has left, unless its body "
            'says `"store": true`.',
            ge=0,
        ),
    ] = 10.0
    log_bytes: Annotated[
        int, about("Memory for the events of one response; the oldest go first.", ge=4096)
    ] = 4_194_304
    total_bytes: Annotated[
        int,
        about("Memory for all finished responses that can be resumed; the oldest go first.", ge=0),
    ] = 268_435_456


class LimitsConfig(Table, frozen=True, kw_only=True):
    """Admission: beyond these limits a request gets error 429."""

    max_requests: Annotated[
        int, about("Most requests in engines, of all users.", ge=1, unit="requests")
    ] = 1024
    max_readers: Annotated[
        int,
        about(
            "Most unfinished responses: in engines, or generated and still being read.",
            ge=1,
            unit="responses",
        ),
    ] = 4096
    max_requests_per_user: Annotated[
        int,
        about(
            "Most unfinished responses of one API key and `user`; requests with neither are "
            "not counted, nor are generated responses that no client reads.",
            ge=1,
            unit="responses",
        ),
    ] = 64
    max_streams_per_connection: Annotated[
        int, about("Most responses that one WebSocket reads at a time.", ge=1, unit="responses")
    ] = 64
    load: Annotated[
        float,
        about(
            "Most load of the engines: what all requests need to be in time, as a share of what "
            "the engines have; 0 turns this limit off.",
            ge=0,
        ),
    ] = 1.0
    retry_after_s: Annotated[
        int,
        about("When a refused client should try again if the gateway cannot foresee it.", ge=1),
    ] = 2


class StoreConfig(Table, frozen=True, kw_only=True):
    """Stored responses (``store: true``, the default of the API)."""

    path: Annotated[str, about("SQLite file; empty: responses.sqlite3 in `server.state_dir`.")] = ""
    url: Annotated[
        str,
        about(
            "PostgreSQL database, as `postgresql://user@host/database`, which several gateways can "
            "share; empty: the SQLite file. The password is best left to `PGPASSWORD` or to "
            "`~/.pgpass`.",
            secret=True,
        ),
    ] = ""
    retention_days: Annotated[
        float, about("Older responses are deleted, every hour; 0: never.", ge=0)
    ] = 30.0
    reasoning_keys: Annotated[
        Texts,
        about(
            "Secrets that encrypt thoughts for clients to keep: the first one encrypts, all "
            "decrypt; empty: a random one that is kept in the store.",
            secret=True,
        ),
    ] = ()
    reasoning_keys_file: Annotated[
        str, about("A file that holds these secrets, one in each line.")
    ] = ""
    reasoning_days: Annotated[
        float, about("Encrypted thoughts that are older are refused; 0: never.", ge=0)
    ] = 30.0
