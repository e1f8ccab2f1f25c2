from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace
from vllm.exceptions import VLLMValidationError
from vllm.v1.core.sched.scheduler import Scheduler

from workers.engine.interface import EngineRequest
from workers.engine.sampling import sampling_params
from workers.errors import RequestRejected
from workers.messages import MigrationStats, Pace, PhaseCounts, PhaseStats, Sampling
from workers.policy.phase import Phase, ThinkMarkers
from workers.scheduler.accounting import Accounting
from workers.scheduler.phase_stats import from_integers, to_integers
from workers.scheduler.plugin import (
    CONFIG_KEY,
    REQUEST_KEY,
    _PhaseMixin,
    policy_settings,
    think_markers,
)


def request(sampling: Sampling = Sampling(), **fields: Any) -> EngineRequest:
    values: dict[str, Any] = {
        "request_id": "a",
        "prompt_token_ids": (1, 2),
        "sampling": sampling,
        "max_tokens": 5,
        "phase": Phase.REASONING,
        "pace": Pace(tau_s=0.1),
    }
    return EngineRequest(**(values | fields))


def test_statistics_survive_the_way_through_integers() -> None:
    stats = PhaseStats(
        reasoning=PhaseCounts(running=1, waiting=2, kv_blocks=3),
        answering=PhaseCounts(running=4, waiting=5, kv_blocks=6),
        kv_blocks_used=9,
        kv_blocks_total=10,
        preemptions_total=11,
        reloaded_tokens_total=12,
        recomputed_tokens_total=13,
    )
    integers = to_integers(stats)
    assert from_integers(integers) == stats
    assert from_integers(integers | {"waiting_to_start": 0}) == stats
    assert len(set(integers)) == len(integers) == 11
    moving = replace(
        stats,
        migration=MigrationStats(
            held_blocks=1,
            tickets_total=2,
            expired_total=3,
            read_requests_total=4,
            read_s_total=0.25,
            failed_total=6,
        ),
    )
    assert from_integers(to_integers(moving)) == moving
    assert all(isinstance(value, int) for value in to_integers(moving).values())


def test_unknown_policy_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="'lifo'; known: fcfs, rr, pascal, slack, andes, tokenflow"
    ):
        policy_settings({"policy": "lifo"})
    assert policy_settings({"policy": "rr", "think_end_token_id": 4}).policy == "rr"


def config(
    phase: dict[str, Any] | None = None, reasoning: Any = None, skip_tokenizer: bool = True
) -> Any:
    return SimpleNamespace(
        additional_config={} if phase is None else {CONFIG_KEY: phase},
        reasoning_config=reasoning,
        model_config=SimpleNamespace(skip_tokenizer_init=skip_tokenizer),
    )


def reasoning_config(start: list[int], end: list[int], enabled: bool = True) -> Any:
    return SimpleNamespace(
        enabled=enabled, reasoning_start_token_ids=start, natural_reasoning_end_token_ids=end
    )


@pytest.mark.parametrize(
    ("given", "markers"),
    [
        (config({"think_start_token_id": 3, "think_end_token_id": 4}), ThinkMarkers(3, 4)),
        (config({"think_end_token_id": 4}, reasoning_config([8], [9])), ThinkMarkers(None, 4)),
        (config(None, reasoning_config([8], [9])), ThinkMarkers(8, 9)),
        (config(None, reasoning_config([8, 8], [9])), ThinkMarkers(None, 9)),
        (config(None, reasoning_config([8], [9, 9])), None),
        (config(None, reasoning_config([8], [9], enabled=False)), None),
        (config(), None),
    ],
)
def test_markers_come_from_the_configuration_first(
    given: Any, markers: ThinkMarkers | None
) -> None:
    assert think_markers(given) == markers


def test_models_own_sampling_is_the_default() -> None:
    defaults = {"temperature": 0.3, "top_k": 20, "max_tokens": 2}
    params = sampling_params(request(Sampling(top_k=7, seed=1)), defaults)
    assert (params.temperature, params.top_k, params.seed) == (0.3, 7, 1)
    assert params.max_tokens == 5


def test_plugins_are_told_what_they_need() -> None:
    told = sampling_params(request(thinking_budget=9), {}).extra_args
    assert told is not None
    assert told[REQUEST_KEY] == {
        "request_id": "a",
        "phase": "reasoning",
        "pace": {"tau_s": 0.1, "paced": True, "paused": False},
        "thinking_budget": 9,
    }
    forced = sampling_params(request(forced_reasoning=0, forced_answer=4), {})
    assert forced.ignore_eos
    assert forced.extra_args is not None
    assert forced.extra_args[REQUEST_KEY]["forced_answer"] == 4


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        (Sampling(temperature=-1.0), "sampling.temperature"),
        (Sampling(temperature=3.0), "sampling.temperature"),
        (Sampling(top_p=0.0), "sampling.top_p"),
        (Sampling(top_k=-2), "sampling.top_k"),
        (Sampling(min_p=2.0), "sampling.min_p"),
        (Sampling(presence_penalty=3.0), "sampling.presence_penalty"),
        (Sampling(frequency_penalty=-3.0), "sampling.frequency_penalty"),
        (Sampling(repetition_penalty=0.0), "sampling.repetition_penalty"),
        (Sampling(seed=2**63), "sampling.seed"),
    ],
)
def test_wrong_sampling_names_its_field(sampling: Sampling, param: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        sampling_params(request(sampling), {})
    assert caught.value.param == param
    assert isinstance(caught.value.__cause__, VLLMValidationError | None)


GOOD: dict[str, Any] = {"phase": "answering", "request_id": "a", "pace": {"tau_s": 0.1}}


class Refusing:
    """A stand-in for vLLM's scheduler that refuses every request."""

    requests: ClassVar[dict[str, Any]] = {}

    def add_request(self, _: Any) -> None:
        raise RuntimeError("no")


class Following(_PhaseMixin, Refusing):
    """Only the part of the mixin that follows requests."""

    def __init__(self) -> None:
        self._phase_states = {}
        self._accounting = Accounting()
        self._own_ids = {}
        self._markers = None
        self._dispatcher = None
        self._step_log = None
        self.migration = None


def test_a_request_that_vllm_does_not_take_is_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Scheduler, "add_request", Refusing.add_request)
    scheduler: Any = Following()
    params = SimpleNamespace(extra_args={REQUEST_KEY: GOOD})
    with pytest.raises(RuntimeError, match="no"):
        scheduler.add_request(SimpleNamespace(request_id="a-0", sampling_params=params))
    assert (scheduler._phase_states, scheduler._own_ids) == ({}, {})
    assert scheduler._accounting.totals(Phase.ANSWERING).requests == 0
