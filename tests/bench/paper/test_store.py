"""Finished runs on disk: found again, never mixed up, never half there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from bench.paper import store as paper_store
from bench.paper.cases import Case, Extent
from bench.paper.store import Store, key
from bench.reporting.errors import BenchmarkError
from tests.bench.support.paper_runs import outcome
from workers.emulation.profile import load_profile

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


@pytest.fixture
def fresh_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """The key of `CASE` from the source as it is now."""

    def found() -> str:
        paper_store._of_code.cache_clear()
        return key(CASE)

    yield found
    paper_store._of_code.cache_clear()


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_after_a_change_of_what_is_imported_a_run_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_key: Callable[[], str]
) -> None:
    monkeypatch.setattr(paper_store, "_ROOT", tmp_path)
    start = "import json\nimport bench.direct\nfrom workers import through\n"
    write(
        tmp_path,
        "bench/paper/run.py",
        start + "from bench.reporting.errors import BenchmarkError\n",
    )
    write(tmp_path, "bench/reporting/errors.py", "one = 1\n")  # decides nothing
    write(tmp_path, "bench/other.py", "one = 1\n")  # nobody imports it
    names = ("bench/direct.py", "workers/through.py", "pacer/__init__.py", "pacer/within.py")
    write(tmp_path, "bench/direct.py", "def f():\n    from pacer.within import one\n")
    for name in names[1:]:
        write(tmp_path, name, "one = 1\n")
    write(tmp_path, "bench/workloads/tables/lengths.csv", "1\n")
    keys = {fresh_key()}
    for name in ("bench/reporting/errors.py", "bench/other.py"):
        write(tmp_path, name, "one = 2\n")
        assert fresh_key() in keys, name
    for name in (*names, "bench/workloads/tables/lengths.csv"):
        write(tmp_path, name, (tmp_path / name).read_text() + "two = 2\n")
        changed = fresh_key()
        assert changed not in keys, name
        keys.add(changed)
    (tmp_path / "pacer/within.py").rename(tmp_path / "pacer/elsewhere.py")
    write(tmp_path, "bench/direct.py", "def f():\n    from pacer.elsewhere import one\n")
    assert fresh_key() not in keys


def test_what_is_written_about_the_source_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_key: Callable[[], str]
) -> None:
    monkeypatch.setattr(paper_store, "_ROOT", tmp_path)
    texts = (
        "def one():\n    return 1\n",
        "def one():\n    return 2\n",
        '"""What it is."""\ndef one():  # for two\n    """One."""\n    return 1\n',
        'def one():\n    return "One."\n',
    )
    keys = []
    for text in texts:
        write(tmp_path, "bench/paper/run.py", text)
        keys.append(fresh_key())
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3


def test_what_decides_is_found_and_what_tells_is_not() -> None:
    names = {path.relative_to(paper_store._ROOT).as_posix() for path in paper_store._sources()}
    assert {
        "bench/migration/under_load.py",
        "bench/simulator/cluster.py",
        "bench/policies/virtual.py",
        "gateway/policy/cluster_view.py",
        "gateway/policy/placement.py",
        "pacer/qoe.py",
        "workers/emulation/device.py",
        "workers/scheduler/hand_over.py",
        "workers/policy/baselines.py",
        "workers/scheduler/plugin.py",
    } <= names
    assert not {name for name in names if name.startswith(("tests/", "web/"))}
    assert not names & {"bench/paper/command.py", "bench/paper/report.py", "bench/paper/store.py"}


def test_another_device_or_another_vllm_is_another_run(
    monkeypatch: pytest.MonkeyPatch, fresh_key: Callable[[], str]
) -> None:
    before = fresh_key()
    profile = load_profile("h100-qwen32b")
    faster = msgspec.structs.replace(
        profile, step=msgspec.structs.replace(profile.step, base_s=0.5 * profile.step.base_s)
    )
    with monkeypatch.context() as patch:
        patch.setattr(paper_store, "load_profile", lambda name: faster)
        assert fresh_key() != before
    with monkeypatch.context() as patch:
        patch.setattr(paper_store, "_version_of_vllm", lambda: "0.99")
        assert fresh_key() != before
    assert fresh_key() == before


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
