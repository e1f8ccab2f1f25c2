"""Two gateways as an operator starts them, with a PostgreSQL that crashes."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgresql import PostgresqlServer
from tests.support.programs import POSTGRESQL, PSYCOPG, needs
from tests.support.server import Server

pytestmark = [needs(POSTGRESQL), needs(PSYCOPG), pytest.mark.long]

BODY = {
    "input": "Hi",
    "pacing": False,
    "forced_lengths": {"reasoning_tokens": 5, "answer_tokens": 5},
}


def test_what_one_gateway_made_is_at_the_other_after_a_crash_of_the_database_and_its_own(
    tmp_path: Path, own_postgresql: PostgresqlServer
) -> None:
    extra = (f"--set=store.url={own_postgresql.new_database()}", "--emulate=h100-qwen32b")

    def respond(server: Server, **fields: Any) -> str:
        status, response = server.request("/v1/responses", BODY | fields)
        assert (status, response.get("status")) == (200, "completed"), response
        return str(response["id"])

    def ready(server: Server) -> bool:
        return server.request("/ready")[0] == 200

    def stored(server: Server) -> bool:
        return (
            server.metric("pascal_store_away") == 0
            and server.metric("pascal_store_queued_bytes") == 0
        )

    with ExitStack() as stack:
        gateways = []
        for name in ("1", "2"):
            (tmp_path / name).mkdir()
            gateways.append(stack.enter_context(Server(tmp_path / name, workers=1, extra=extra)))
        one, two = gateways
        for server in gateways:
            server.wait_for(partial(ready, server))
        first = respond(one)
        one.wait_for(partial(stored, one))
        respond(two, previous_response_id=first)
        own_postgresql.stop("immediate")
        made = [respond(one) for _ in range(10)]
        one.wait_for(lambda: one.metric("pascal_store_away") == 1)
        assert one.request("/v1/responses/resp_unknown")[0] == 503
        assert one.metric("pascal_store_queued_bytes") > 0
        own_postgresql.start()
        for server in gateways:
            server.wait_for(partial(stored, server))
        one.process.kill()
        for response_id in made:
            assert two.request(f"/v1/responses/{response_id}")[0] == 200
        respond(two, previous_response_id=made[-1])
