"""``pascal keys`` on a real file."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest

from gateway.keys.making import digest_of
from gateway.store import KeyUsage, key_file, keys_in
from pascal.main import main


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PASCAL_CONFIG", raising=False)
    return tmp_path / ".pascal" / "responses.sqlite3"


def keys(*words: str) -> int:
    return main(["keys", *words])


def test_a_key_is_shown_once_and_stored_as_its_digest(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--requests-per-minute 60 --tokens-per-minute 10000 --concurrent 3".split()
    scopes = ["--scope", "chat", "--scope", "operations", "--priority", "low"]
    assert keys("add", "alice", *flags, *scopes) == 0
    shown = capsys.readouterr()
    text = shown.out.strip()
    assert text.startswith("sk-pascal-")
    assert len(text) == len("sk-pascal-") + 43  # 256 bits
    assert text not in shown.err
    with key_file(store) as connection:
        (key,) = keys_in(connection)
    assert key.digest == digest_of(text)
    assert text.startswith(key.prefix)
    assert (key.name, key.priority) == ("alice", "low")
    assert key.scopes == {"chat", "operations"}
    limits = key.limits
    assert (limits.requests_per_minute, limits.tokens_per_minute) == (60, 10000)
    assert (limits.tokens_per_day, limits.concurrent) == (None, 3)
    assert keys("list") == 0
    assert text not in capsys.readouterr().out
    assert stat.S_ISREG(store.stat().st_mode)


def test_two_keys_differ_and_a_name_is_free_again_after_its_key_was_revoked(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keys("add", "alice") == 0
    first = capsys.readouterr().out
    assert keys("add", "alice") == 1
    refused = capsys.readouterr()
    assert (refused.out, "'alice'" in refused.err) == ("", True)
    assert keys("revoke", "alice") == 0
    assert keys("revoke", "alice") == 1
    assert "'alice'" in capsys.readouterr().err
    assert keys("add", "alice") == 0
    assert capsys.readouterr().out != first
    assert keys("list", "--json", "--all") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [bool(key["revoked_at"]) for key in listed] == [True, False]
    assert keys("revoke", listed[1]["id"]) == 0
    capsys.readouterr()
    assert keys("list") == 0
    assert "There are no keys" in capsys.readouterr().out


def test_an_output_that_nobody_reads_undoes_nothing(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is no failure of the store."""

    class Left:
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None: ...

    assert keys("add", "alice") == 0
    for words in (["list"], ["revoke", "alice"]):
        with monkeypatch.context() as patched:
            patched.setattr("sys.stdout", Left())
            assert keys(*words) == 1
    assert "cannot be used" not in capsys.readouterr().err
    with key_file(store) as connection:
        (key,) = keys_in(connection)
    assert key.revoked_at is not None


def test_the_list_shows_what_was_used(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys("add", "alice", "--tokens-per-day", "500") == 0
    today = int(time.time() // 86400)
    with key_file(store) as connection:
        (key,) = keys_in(connection)
        rows = [(key.key_id, today - age, 1, 20, 80) for age in (0, 29, 31)]
        connection.executemany("INSERT INTO key_usage VALUES (?, ?, ?, ?, ?)", rows)
    capsys.readouterr()
    assert keys("list", "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert KeyUsage(**shown["used_today"]) == KeyUsage(1, 20, 80)
    assert KeyUsage(**shown["used_in_30_days"]) == KeyUsage(2, 40, 160)
    assert shown["limits"]["tokens_per_day"] == 500
    assert keys("list") == 0
    text = capsys.readouterr().out
    assert "today: 1 requests, 100 tokens; in 30 days: 2 requests, 200 tokens" in text
    assert "tokens per day: 500" in text


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["add", "a b"], "NAME"),
        (["add", "key_1"], "NAME"),
        (["add", ""], "NAME"),
        (["add", "x" * 65], "NAME"),
        (["add", "x", "--concurrent", "0"], "--concurrent"),
        (["add", "x", "--tokens-per-day", "-5"], "--tokens-per-day"),
        (["add", "x", "--tokens-per-minute", "9" * 50], "--tokens-per-minute"),
        (["add", "x", "--requests-per-minute", "1.5"], "--requests-per-minute"),
        (["add", "x", "--scope", "everything"], "--scope"),
        (["add", "x", "--priority", "highest"], "--priority"),
    ],
)
def test_a_wrong_flag_is_named_and_stores_nothing(
    store: Path, capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        keys(*words)
    assert caught.value.code == 2
    assert named in capsys.readouterr().err
    assert not store.exists()


def test_a_store_that_is_none_is_named(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["list"], ["revoke", "alice"]):
        assert keys(*words) == 1
        assert "responses.sqlite3 cannot be used: there is no such file" in capsys.readouterr().err
    store.parent.mkdir()
    store.write_text("no database, but long enough to look at " * 10)
    for words in (["list"], ["add", "alice"], ["revoke", "alice"]):
        assert keys(*words) == 1
        shown = capsys.readouterr()
        assert "responses.sqlite3 cannot be used" in shown.err
        assert shown.out == ""
    assert keys("list", "--set", "store.pth=x") == 2
    assert "store.pth" in capsys.readouterr().err


def test_the_configuration_says_where_the_store_is(
    store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert keys("add", "alice", "--set", "store.path=other.sqlite3") == 0
    assert (tmp_path / "other.sqlite3").exists()
    assert not store.exists()
