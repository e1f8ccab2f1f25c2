"""Finished runs on disk: loaded again, never confused, never incomplete."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grimp
import pytest

from bench.paper import store as paper_store
from bench.paper.cases import Case
from bench.paper.store import Store, key
from bench.reporting.errors import BenchmarkError
from bench.simulator.load import Extent
from tests.bench.support.paper_runs import outcome

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


def test_a_run_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
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


@pytest.fixture
def fresh_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Computes the key of `CASE` from the present source."""

    def computed() -> str:
        paper_store._code_digest.cache_clear()
        return key(CASE)

    yield computed
    paper_store._code_digest.cache_clear()


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_after_a_change_of_a_file_that_decides_a_run_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_key: Callable[[], str]
) -> None:
    monkeypatch.setattr(paper_store, "_ROOT", tmp_path)
    ignored = ("bench/reporting/errors.py", "bench/paper/report.py", "workers/kv/README.md")
    deciding = (
        "bench/paper/run.py",
        "bench/workloads/tables/lengths.csv",
        "pacer/buffer.py",
        "workers/emulation/profiles/h100.toml",
    )
    for name in (*ignored, *deciding):
        write(tmp_path, name, "one = 1\n")
    keys = {fresh_key()}
    for name in ignored:
        write(tmp_path, name, "one = 2\n")
        assert fresh_key() in keys, name
    for name in deciding:
        write(tmp_path, name, "one = 2\n")
        assert fresh_key() not in keys, name
        keys.add(fresh_key())
    (tmp_path / "pacer/buffer.py").rename(tmp_path / "pacer/elsewhere.py")
    assert fresh_key() not in keys


def test_every_module_that_a_run_imports_is_in_its_digest() -> None:
    graph = grimp.build_graph("bench", "gateway", "pacer", "workers")
    covered = {path.relative_to(paper_store._ROOT) for path in paper_store._deciding_files()}
    decides_nothing = {
        "bench.paper.outcome",
        "bench.paper.store",
        "bench.reporting.errors",
        "workers.step_log",
    }
    imported = graph.find_upstream_modules("bench.paper.run") - decides_nothing
    files = {name: Path(*name.split(".")) for name in imported}
    missing = {
        name
        for name, path in files.items()
        if not covered & {path.with_suffix(".py"), path / "__init__.py"}
    }
    assert not missing


def test_another_vllm_is_another_run(
    monkeypatch: pytest.MonkeyPatch, fresh_key: Callable[[], str]
) -> None:
    before = fresh_key()
    monkeypatch.setattr(paper_store, "_version_of_vllm", lambda: "0.99")
    assert fresh_key() != before


def test_an_interrupted_write_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(path: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", cut_off)
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.save(CASE, outcome("pascal", [3.0]))
    assert store.load(CASE) is None


def test_a_file_that_is_not_a_run_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for text in ("{", "[]", json.dumps({"outcome": {"run": {}}}), json.dumps({"outcome": None})):
        store.path(CASE).write_text(text)
        with pytest.raises(BenchmarkError, match=f"{key(CASE)}.json: not a finished run"):
            store.load(CASE)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BenchmarkError, match=r"--state .*file/state"):
        Store(tmp_path / "file" / "state")
