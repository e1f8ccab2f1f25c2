"""API keys and web origins."""

from collections.abc import Mapping
from unittest.mock import MagicMock

import pytest

from gateway.api import auth
from gateway.api.auth import ForbiddenOrigin, is_local
from gateway.config import ServerConfig
from gateway.keys.keys import Keys
from gateway.schemas.errors import Unauthorized

KEYS = ServerConfig(api_keys=("alice", "bob"))


def authenticate(config: ServerConfig, headers: Mapping[str, str]) -> str:
    """The owner of requests with these headers, without stored keys."""
    keys = Keys(config.api_keys, MagicMock(), retry_after_s=2)
    return auth.authenticate(config, keys, headers).owner


def test_without_keys_everybody_is_the_same_owner() -> None:
    assert authenticate(ServerConfig(), {}) == ""
    assert authenticate(ServerConfig(), {"Authorization": "Bearer whatever"}) == ""


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer eve"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic alice"},
        {"Authorization": "Bearer älice"},
        {"Sec-WebSocket-Protocol": "responses"},
        {"Sec-WebSocket-Protocol": "openai-insecure-api-key.eve"},
    ],
)
def test_no_or_a_wrong_key_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        authenticate(KEYS, headers)


def test_each_key_is_an_owner_however_it_was_sent() -> None:
    alice = authenticate(KEYS, {"Authorization": "Bearer alice"})
    protocol = {"Sec-WebSocket-Protocol": "responses, openai-insecure-api-key.alice"}
    assert authenticate(KEYS, protocol) == alice
    assert authenticate(KEYS, {"Authorization": "bearer bob"}) != alice
    assert "alice" not in alice


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://host:81"])
def test_pages_of_other_origins_are_refused(origin: str) -> None:
    with pytest.raises(ForbiddenOrigin):
        authenticate(ServerConfig(host="0.0.0.0"), {"Origin": origin, "Host": "host:80"})


def test_on_the_loopback_only_its_own_names_are_own() -> None:
    for name in ("127.0.0.1:8080", "localhost:8080", "[::1]:8080"):
        authenticate(ServerConfig(), {"Origin": f"http://{name}", "Host": name})
    rebound = {"Origin": "http://evil.example:8080", "Host": "evil.example:8080"}
    with pytest.raises(ForbiddenOrigin):
        authenticate(ServerConfig(), rebound)


def test_headers_that_are_no_text_are_refused_like_others() -> None:
    with pytest.raises(Unauthorized):
        authenticate(KEYS, {"Authorization": "Bearer \udcff"})
    for origin in ("http://\udcff\udcfe", "http://[::1"):
        with pytest.raises(ForbiddenOrigin) as caught:
            authenticate(ServerConfig(), {"Origin": origin, "Host": "localhost"})
        caught.value.message.encode()  # it can be sent


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST:1"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_a_program_on_this_machine_is_local(peer: str, host: str) -> None:
    assert is_local(peer, {"Host": host, "User-Agent": "curl"})


@pytest.mark.parametrize("peer", ["10.0.0.7", "::ffff:10.0.0.7", "2001:db8::1", "", "unix:", None])
def test_another_machine_is_not(peer: str | None) -> None:
    assert not is_local(peer, {"Host": "localhost"})


@pytest.mark.parametrize(
    "header",
    """Forwarded Via X-Real-IP X-Forwarded-For X-FORWARDED-HOST x-forwarded-proto X-Forwarded
    X-Client-IP True-Client-IP CF-Connecting-IP Fastly-Client-IP""".split(),
)
def test_who_comes_through_a_proxy_on_this_machine_is_not_local(header: str) -> None:
    for value in ("203.0.113.9", "127.0.0.1", ""):
        assert not is_local("127.0.0.1", {"Host": "localhost", header: value})


@pytest.mark.parametrize("host", ["chat.example", "chat.example:8080", "", "[::1", "10.0.0.7"])
def test_nor_is_who_asks_for_another_name(host: str) -> None:
    assert not is_local("127.0.0.1", {"Host": host})
    assert not is_local("127.0.0.1", {})


def test_keys_are_in_no_representation() -> None:
    assert "alice" not in repr(KEYS)


def test_own_and_allowed_origins_pass() -> None:
    everywhere = ServerConfig(host="0.0.0.0")
    authenticate(everywhere, {"Origin": "http://host:80", "Host": "host:80"})
    config = ServerConfig(allowed_origins=("https://chat.example",))
    authenticate(config, {"Origin": "https://chat.example", "Host": "host:80"})
