"""Finished runs on disk: found again, never mixed up, never half there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import paper_store
from bench.errors import BenchmarkError
from bench.paper_cases import Case, Extent
from bench.paper_store import Store, key
from tests.bench.paper_runs import outcome

CASE = Case(
    workload="arena-hard",
    rate=1.0,
    policy="pascal",
    boundary="adaptive",
    seed=1,
    instances=2,
    kv_blocks=500,
    extent=Extent(0.0, 5.0, 6.0),
    token_s=0.03,
)


def test_a_run_is_found_again_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "state")
    assert store.load(CASE) is None
    run = outcome("pascal", [3.0, 5.0], violations=1)
    store.save(CASE, run)
    assert Store(store.folder).get(CASE) == run
    assert [path.suffix for path in store.folder.iterdir()] == [".json"]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"rate": 1.01},
        {"policy": "rr"},
        {"boundary": "off"},
        {"kv_blocks": 501},
        {"extent": Extent(0.0, 5.0, 7.0)},
        {"token_s": None},
        {"numbers": (("quantum_tokens", 250.0),)},
        {"longest": 1000},
        {"instances": 3},
        {"workload": "alpacaeval"},
    ],
)
def test_another_case_is_another_run(tmp_path: Path, changes: dict[str, object]) -> None:
    store = Store(tmp_path)
    store.save(CASE, outcome("pascal", [3.0]))
    other = replace(CASE, **changes)  # type: ignore[arg-type]
    assert store.load(other) is None
    assert key(other) != key(CASE)


def test_after_a_change_of_the_source_a_run_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "bench" / "simulator.py"
    source.parent.mkdir()
    source.write_text("one = 1\n")
    monkeypatch.setattr(paper_store, "_ROOT", tmp_path)
    keys = []
    texts = (
        "def one():\n    return 1\n",
        "def one():\n    return 2\n",
        '"""What it is."""\ndef one():  # for two\n    """One."""\n    return 1\n',
        'def one():\n    return "One."\n',
    )
    for text in texts:
        source.write_text(text)
        paper_store._of_code.cache_clear()
        keys.append(key(CASE))
    paper_store._of_code.cache_clear()
    assert keys[0] == keys[2], "what is written about it decides nothing"
    assert len(set(keys)) == 3


def test_every_named_source_exists() -> None:
    for pattern in paper_store._SOURCES:
        assert list(paper_store._ROOT.glob(pattern)), pattern


def test_what_was_cut_off_in_mid_write_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(path: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", cut_off)
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.save(CASE, outcome("pascal", [3.0]))
    assert store.load(CASE) is None


def test_another_file_in_its_place_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for text in ("{", "[]", json.dumps({"outcome": {"run": {}}}), json.dumps({"outcome": None})):
        store.path(CASE).write_text(text)
        with pytest.raises(BenchmarkError, match=f"{key(CASE)}.json: no finished run"):
            store.load(CASE)


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BenchmarkError, match=r"--state .*file/state"):
        Store(tmp_path / "file" / "state")
