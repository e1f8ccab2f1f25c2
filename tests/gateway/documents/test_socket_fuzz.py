"""Whatever a client sends over a WebSocket, the answers are as /asyncapi.json says."""

from __future__ import annotations

from pathlib import Path

from tests.gateway.support.played import played
from tests.gateway.support.socket_fuzz import fuzz


async def test_anything_sent_gets_an_answer_and_disturbs_nobody(tmp_path: Path) -> None:
    async with played(tmp_path) as (http, _, player):
        outcome = await fuzz(http, messages=500, seed=1)
    assert outcome.failures == []
    assert outcome.sent >= 500
    assert outcome.healthy >= 1
    assert player.seen > outcome.healthy  # some messages were right
    assert {"response.completed", "invalid_json", "invalid_value"} <= outcome.seen.keys()
    assert {"unknown_parameter", "response_not_found", "request_too_large"} <= outcome.seen.keys()
