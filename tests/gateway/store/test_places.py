"""What a place is called, and which settings name one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, ConfigError, load
from gateway.store import StoreUnusable, check_store, name_of


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (Path("/a/b.sqlite3"), "/a/b.sqlite3"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://me@host:5/db", "postgresql://me@host:5/db"),
        ("postgresql://me:hush@one:5,two:6/db?password=hush", "postgresql://me@one:5,two:6/db"),
        ("postgresql://me:hu@sh:@host/db", "postgresql://me@host/db"),
        ("postgresql:///db?host=/run&password=hush", "postgresql:///db"),
    ],
)
def test_the_name_of_a_place_has_no_password(place: Path | str, name: str) -> None:
    assert name_of(place) == name


def test_without_its_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> Any:
        raise ImportError("No module named 'psycopg'")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(StoreUnusable, match=r"its driver is missing .*extra `postgresql`"):
        check_store("postgresql://me@host/gateways")


def test_the_settings_name_one_place() -> None:
    url = "postgresql://me:hush@host/db"
    assert Config().store_place == Path(".pascal/responses.sqlite3")
    assert load(None, {}, {"store.path": "x"}).store_place == Path("x")
    config = load(None, {"PASCAL_STORE_URL": url}, {})
    assert config.store_place == url
    assert "hush" not in repr(config)
    with pytest.raises(ConfigError, match=r"store\.url: has no place beside store\.path"):
        load(None, {}, {"store.path": "x", "store.url": url})
    with pytest.raises(ConfigError, match=r"store\.url: is not of the form") as caught:
        load(None, {}, {"store.url": "mysql://me:hush@host/db"})
    assert "hush" not in str(caught.value)
