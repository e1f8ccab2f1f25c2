"""API keys and web origins."""

import pytest

from gateway.auth import ForbiddenOrigin, authenticate
from gateway.config import ServerConfig
from gateway.errors import Unauthorized

KEYS = ServerConfig(api_keys=("alice", "bob"))


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


def test_keys_are_in_no_representation() -> None:
    assert "alice" not in repr(KEYS)


def test_own_and_allowed_origins_pass() -> None:
    everywhere = ServerConfig(host="0.0.0.0")
    authenticate(everywhere, {"Origin": "http://host:80", "Host": "host:80"})
    config = ServerConfig(allowed_origins=("https://chat.example",))
    authenticate(config, {"Origin": "https://chat.example", "Host": "host:80"})
