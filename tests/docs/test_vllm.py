"""The table of what we touch in vLLM: vLLM has all of it, and our sources touch nothing else.

Neither our sources nor vLLM's modules are imported at the top: a name that vLLM no longer has then
fails the tests that it belongs to, and the others still say what else has changed.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from types import SimpleNamespace

import pytest
from vllm_reference import PAGE, page

from tests.docs.support import vllm_shape
from tests.docs.support.vllm_shape import name_of_member, problem_of
from tests.docs.support.vllm_use import private_of_others, uses
from tests.docs.test_names import is_there
from workers.vllm_members import ADDED_TO_ENGINE_CORE, IMPORTED, MEMBERS, PLUG_POINTS, Touched

_TABLE = {
    (row.owner, name_of_member(member)) for row in (*IMPORTED, *MEMBERS) for member in row.members
}
_UPGRADE = "see docs/reference/vllm.md"


@pytest.mark.parametrize("row", [*IMPORTED, *MEMBERS], ids=lambda row: row.owner)
def test_vllm_has_every_member_as_we_rely_on_it(row: Touched) -> None:
    problems = [problem for m in row.members if (problem := problem_of(row.owner, m))]
    assert not problems, f"{problems}: {_UPGRADE}"


def test_sources_touch_only_what_the_table_lists() -> None:
    unlisted = {key: sorted(files) for key, files in uses().items() if key not in _TABLE}
    assert not unlisted, f"not in workers/vllm_members.py: {unlisted}"
    names = {name for _, name in _TABLE}
    private = {name: sorted(where) for name, where in private_of_others().items()}
    assert not private.keys() - names, f"not in workers/vllm_members.py: {private}"


def test_the_table_lists_only_what_the_sources_touch() -> None:
    private = private_of_others()
    stale = {key for key in _TABLE if key not in uses() and key[1] not in private}
    assert not stale, f"nothing touches {sorted(stale)}: take it out of workers/vllm_members.py"


def test_every_class_has_a_reason_and_stands_once() -> None:
    assert all(row.why for row in MEMBERS)
    for rows in (IMPORTED, MEMBERS):
        owners = [row.owner for row in rows]
        assert sorted(owners) == owners
        assert len(set(owners)) == len(owners)


def test_every_plug_point_and_what_is_put_there_exists() -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    settings = {spec.name for spec in dataclasses.fields(AsyncEngineArgs)}
    for point in PLUG_POINTS:
        assert point.setting in settings
        assert all(is_there(name) for name in point.ours)


def test_what_is_added_to_the_engine_core_replaces_nothing_of_vllm() -> None:
    from vllm.v1.engine.core import EngineCore

    from workers.scheduler import engine_core_calls

    source = inspect.getsource(EngineCore)
    for name in ADDED_TO_ENGINE_CORE:
        assert callable(getattr(engine_core_calls, name))
        assert not re.search(rf"\b{name}\b", source)


def test_the_fields_that_carry_our_own_facts_are_there() -> None:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.metrics.stats import SchedulerStats

    assert SchedulerStats().num_kv_fetch_reqs_by_stage == {}
    assert "kv_connector_metadata" in {spec.name for spec in dataclasses.fields(SchedulerOutput)}


def test_the_page_agrees_with_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run scripts/vllm_reference.py"


class _Engine:
    limit: int

    def __init__(self) -> None:
        self.steps = 0

    @property
    def name(self) -> str:
        return ""

    def run(self, request: str, *, times: int = 1, log: bool = False) -> None:
        pass

    def need(self, request: str, session: str) -> None:
        pass

    async def wait(self) -> None:
        pass


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        ("run(self, request, *, times=1, log=False)", None),
        ("run(self, request, *, times=1, ...)", None),
        ("run(self, request, ...)", None),
        ("run(self, request, *, times=1)", "rely on"),
        ("run(self, request, *, times=2, ...)", "rely on"),
        ("run(self, request, *, often=1, ...)", "rely on"),
        ("run(self, requests, ...)", "rely on"),
        ("need(self, request, ...)", "rely on"),
        ("run", "rely on"),
        ("async wait(self)", None),
        ("wait(self)", "is asynchronous"),
        ("async run(self, request, ...)", "is not asynchronous"),
        ("steps", None),
        ("limit", None),
        ("name", None),
        ("name(self)", "is no function"),
        ("runs", "has no runs"),
    ],
)
def test_a_member_that_has_changed_is_noticed(
    member: str, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_shape, "owner_named", lambda _: _Engine)
    found = problem_of("vllm.Engine", member)
    assert found is None if problem is None else found is not None and problem in found


def test_a_class_that_is_gone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = "vllm.v1.core.sched.scheduler.Scheduler"
    assert problem_of(scheduler, "running") is None
    assert problem_of(f"{scheduler}s", "running") == f"vLLM has no {scheduler}s"
    module = SimpleNamespace(there=1)
    monkeypatch.setattr(vllm_shape, "owner_named", lambda _: module)
    assert problem_of("vllm.module", "there") is None
    assert problem_of("vllm.module", "away") == "vllm.module has no away"
