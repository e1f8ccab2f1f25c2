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
from workers.policy.phase import Markers, Phase
from workers.scheduler.accounting import Accounting
from workers.scheduler.phase_stats import from_integers, to_integers
from workers.scheduler.plugin import (
    CONFIG_KEY,
    REQUEST_KEY,
    _PhaseMixin,
    markers_of,
    policy_settings,
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
        calling=PhaseCounts(running=14, waiting=15, kv_blocks=16),
    )
    integers = to_integers(stats)
    assert from_integers(integers) == stats
    assert from_integers(integers | {"waiting_to_start": 0}) == stats
    assert len(set(integers)) == len(integers) == 14
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
    assert policy_settings({"policy": "rr", "markers": None}).policy == "rr"


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
        (config({"markers": {"reasoning_ends": [[4]]}}), Markers(reasoning_ends=((4,),))),
        (config({"markers": None}, reasoning_config([8], [9])), None),
        (
            config({"markers": {"text_only": True}}, reasoning_config([8], [9])),
            Markers(text_only=True),
        ),
        (config(None, reasoning_config([8], [9])), Markers.of_thoughts(8, 9)),
        (config(None, reasoning_config([8, 8], [9, 7])), Markers(((8, 8),), ((9, 7),))),
        (config(None, reasoning_config([8], [9], enabled=False)), None),
        (config(), None),
    ],
)
def test_markers_come_from_the_configuration_first(given: Any, markers: Markers | None) -> None:
    assert markers_of(given) == markers


def test_wrong_markers_are_an_error_that_names_them() -> None:
    with pytest.raises(ValueError, match=r"markers: .*reasoning_ends"):
        markers_of(config({"markers": {"reasoning_ends": ["</think>"]}}))


def test_models_own_sampling_is_the_default() -> None:
    defaults = {"temperature": 0.3, "top_k": 20, "max_tokens": 2}
    params = sampling_params(request(Sampling(top_k=7)), defaults)
    assert (params.temperature, params.top_k) == (0.3, 7)
    assert params.max_tokens == 5


def test_plugins_are_told_what_they_need() -> None:
    told = sampling_params(request(thinking_budget=9), {}).extra_args
    assert told is not None
    assert told[REQUEST_KEY] == {
        "request_id": "a",
        "phase": "reasoning",
        "pace": {"tau_s": 0.1, "paced": True, "paused": False},
        "thinking_budget": 9,
        "calls": False,
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
        (Sampling(min_tokens=-1), "sampling.min_tokens"),
        (Sampling(min_tokens=6), "sampling.min_tokens"),
        (Sampling(max_tokens=4, min_tokens=5), "sampling.min_tokens"),
        (Sampling(logprobs=-1), "sampling.logprobs"),
        (Sampling(logit_bias={4: 101.0}), "sampling.logit_bias"),
        (Sampling(logit_bias={4: float("nan")}), "sampling.logit_bias"),
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
        self._watched = frozenset()
        self._dispatcher = None
        self._step_log = None
        self._costly = set()
        self.migration = None


def test_a_request_that_vllm_does_not_take_is_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Scheduler, "add_request", Refusing.add_request)
    scheduler: Any = Following()
    params = SimpleNamespace(extra_args={REQUEST_KEY: GOOD})
    with pytest.raises(RuntimeError, match="no"):
        scheduler.add_request(SimpleNamespace(request_id="a-0", sampling_params=params, priority=0))
    assert (scheduler._phase_states, scheduler._own_ids) == ({}, {})
    assert scheduler._accounting.totals(Phase.ANSWERING).requests == 0


AGENT = Markers(reasoning_ends=((8, 9),), call_starts=((5,),), call_ends=((6,),), implicit=True)


def followed(
    monkeypatch: pytest.MonkeyPatch, prompt: list[int], markers: Markers, **told: Any
) -> Any:
    """A scheduler that follows one request, which it has already handed to vLLM."""
    monkeypatch.setattr(Scheduler, "add_request", lambda self, request: None)
    scheduler: Any = Following()
    scheduler._markers = markers
    scheduler._watched = markers.watched
    params = SimpleNamespace(extra_args={REQUEST_KEY: GOOD | told})
    scheduler.requests = {}
    scheduler.add_request(
        SimpleNamespace(
            request_id="a-0", sampling_params=params, prompt_token_ids=prompt, priority=0
        )
    )
    return scheduler


def got(scheduler: Any, *token_ids: int) -> Phase:
    """The phase after the next tokens."""
    output = SimpleNamespace(request_id="a-0", new_token_ids=list(token_ids), finish_reason=None)
    scheduler._observe([output], 0.0)
    phase: Phase = scheduler._phase_states["a-0"].tracker.phase
    assert scheduler._accounting.totals(phase).requests == 1
    return phase


def test_a_marker_is_seen_however_its_tokens_come(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = followed(monkeypatch, [1], AGENT, phase="reasoning")
    assert got(scheduler, 1, 8) is Phase.REASONING
    assert got(scheduler, 1, 8) is Phase.REASONING
    assert got(scheduler, 9) is Phase.ANSWERING
    assert got(scheduler, 1) is Phase.ANSWERING
    assert got(scheduler, 5, 1) is Phase.CALLING


def test_a_marker_that_began_on_another_engine_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    known = followed(monkeypatch, [1, 7, 8], AGENT, phase="reasoning", known_tokens=2)
    assert got(known, 9) is Phase.ANSWERING
    prompt = followed(monkeypatch, [1, 7, 8], AGENT, phase="reasoning")
    assert got(prompt, 9) is Phase.REASONING  # the prompt is no output


def test_a_request_without_tools_makes_no_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = followed(monkeypatch, [1], AGENT, phase="reasoning", calls=False)
    assert got(scheduler, 5) is Phase.REASONING
    assert got(scheduler, 8, 9, 5) is Phase.ANSWERING


def test_the_worker_tells_the_phases_that_only_text_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = followed(monkeypatch, [1], Markers(text_only=True), phase="reasoning")
    assert got(scheduler, 1, 2) is Phase.REASONING
    scheduler.turn("a", Phase.CALLING)
    scheduler.turn("a", Phase.CALLING)
    scheduler.turn("unknown", Phase.CALLING)
    assert got(scheduler, 3) is Phase.CALLING
    tracker = scheduler._phase_states["a-0"].tracker
    scheduler._phase_states["a-0"].settle()
    assert (tracker.reasoning_tokens, tracker.calling_tokens) == (2, 1)
