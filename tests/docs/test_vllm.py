"""The tables of what we touch in vLLM: the same as the sources, and all of it there."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine.core import EngineCore
from vllm.v1.metrics.stats import SchedulerStats

from tests.docs.pages import table
from tests.docs.test_names import is_there
from tests.docs.vllm_use import class_named, members_of, private_of_others, touched
from workers.scheduler import engine_core_calls

PAGE = "docs/explanation/architecture.md"


def _names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def documented() -> dict[str, set[str]]:
    """Members by class, as the page has them; a row without a class goes on with the one above."""
    found: dict[str, set[str]] = {}
    cls = ""
    for first, members, why in table(PAGE, "class of vLLM"):
        cls = first.strip("`") or cls
        assert why, f"no reason for {members}"
        found.setdefault(cls, set()).update(_names(members))
    return found


def test_every_plug_point_and_what_is_put_there_exists() -> None:
    settings = {spec.name for spec in dataclasses.fields(AsyncEngineArgs)}
    rows = table(PAGE, "setting of vLLM")
    assert len(rows) == 5
    for setting, ours, _ in rows:
        assert setting.strip("`") in settings
        assert all(is_there(name) for name in _names(ours) if name.startswith("workers."))


@pytest.mark.parametrize("cls", sorted(documented()))
def test_vllm_has_every_member_that_we_touch(cls: str) -> None:
    assert not documented()[cls] - members_of(class_named(cls))


def test_the_page_names_what_the_sources_touch_and_nothing_else() -> None:
    said = documented()
    for cls, members in touched().items():
        missing = members - said.get(cls, set())
        assert not missing, f"{cls}: {sorted(missing)} not in {PAGE}"
    of_others = set(private_of_others())
    everything = {member for members in said.values() for member in members}
    assert of_others <= everything, f"{sorted(of_others - everything)} not in {PAGE}"
    for cls, named in said.items():
        untouched = named - touched().get(cls, frozenset()) - of_others
        assert not untouched, f"{PAGE}: nothing of ours touches {sorted(untouched)} of {cls}"


def test_what_is_added_to_the_engine_core_replaces_nothing_of_vllm() -> None:
    source = inspect.getsource(EngineCore)
    for name in ("set_pace", "hand_over", "kv_endpoint", "meet_peer"):
        assert callable(getattr(engine_core_calls, name))
        assert not re.search(rf"\b{name}\b", source)


def test_the_field_of_free_integers_is_there() -> None:
    assert SchedulerStats().num_kv_fetch_reqs_by_stage == {}
    assert "kv_connector_metadata" in {spec.name for spec in dataclasses.fields(SchedulerOutput)}


def test_a_member_that_vllm_lacks_is_noticed() -> None:
    scheduler = class_named("vllm.v1.core.sched.scheduler.Scheduler")
    assert "_preempt_request" in members_of(scheduler)
    assert "_preempt_requests" not in members_of(scheduler)
    with pytest.raises(AssertionError, match=r"vLLM has no .*Schedulers"):
        class_named("vllm.v1.core.sched.scheduler.Schedulers")
