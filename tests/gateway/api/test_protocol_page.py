"""`docs/reference/api.md` names what the code can say to a client."""

from __future__ import annotations

import re

from gateway.api.connections import HEADER_BYTES
from gateway.config import Config
from gateway.schemas.bodies import MOST_STOP_STRINGS
from tests.gateway.response.test_endings import ENDINGS
from tests.support.server import ROOT

PAGE = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")


def test_every_ending_is_a_row_with_what_both_apis_say() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for ending in ENDINGS:
        words = [f"`{word}`" for word in (ending.status, ending.why) if word]
        chat = ending.chat if ending.chat_status != 503 or ending.chat == "draining" else "error"
        fits = [row for row in rows if all(word in row for word in words) and chat in row]
        assert fits, (ending.status, ending.why, ending.chat)


def test_its_settings_and_bounds_are_those_of_the_code() -> None:
    for table, key in re.findall(r"`(server|session|limits)\.(\w+)`", PAGE):
        assert hasattr(getattr(Config(), table), key), f"{table}.{key}"
    assert f"at most {MOST_STOP_STRINGS} are accepted" in PAGE
    assert PAGE.count(f"{HEADER_BYTES // 1024} KiB") == 2
    assert f"`server.sse_keepalive_s` ({Config().server.sse_keepalive_s:g} s)" in PAGE
