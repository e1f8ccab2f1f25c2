from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import messages
from workers.messages import FinishReason, ToGateway, ToWorker

texts = st.text(max_size=30)
counts = st.integers(0, 2**53)
seconds = st.floats(0, 1e9)


def built(kind: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(fields).map(lambda values: kind(**values))


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


numbers = maybe(st.floats(-1e6, 1e6))
pace = built(messages.Pace, tau_s=seconds, paced=st.booleans(), paused=st.booleans())
phase_counts = built(messages.PhaseCounts, running=counts, waiting=counts, kv_blocks=counts)
stats = built(
    messages.StepStats,
    reasoning=phase_counts,
    answering=phase_counts,
    kv_blocks_used=counts,
    kv_blocks_total=counts,
    preemptions_total=counts,
    steps_total=counts,
)
sampling = built(
    messages.Sampling,
    max_tokens=maybe(counts),
    temperature=numbers,
    top_p=numbers,
    top_k=maybe(st.integers(-(2**53), 2**53)),
    seed=maybe(st.integers(-(2**63), 2**63 - 1)),
    stop=st.lists(texts, max_size=3).map(tuple),
    ignore_eos=st.booleans(),
    thinking_budget=maybe(counts),
)
submit = built(
    messages.Submit,
    request_id=texts,
    messages=st.lists(built(messages.ChatMessage, role=texts, content=texts), max_size=3).map(
        tuple
    ),
    sampling=sampling,
    pace=pace,
    thinking=maybe(st.booleans()),
    known_token_ids=st.lists(counts, max_size=5).map(tuple),
    forced_lengths=maybe(
        built(messages.ForcedLengths, reasoning_tokens=counts, answer_tokens=counts)
    ),
)
token_run = built(
    messages.TokenRun,
    request_id=texts,
    position=counts,
    token_ids=st.lists(counts, max_size=5).map(tuple),
    texts=st.lists(texts, max_size=5).map(tuple),
    boundary=maybe(counts),
    finish=maybe(
        built(
            messages.Finish,
            reason=st.sampled_from(get_args(FinishReason)),
            preemptions=counts,
            cached_tokens=counts,
            message=maybe(texts),
        )
    ),
)
to_worker = st.one_of(
    built(messages.Hello, protocol=counts, token=maybe(texts)),
    submit,
    built(messages.Cancel, request_id=texts),
    built(messages.SetPace, request_id=texts, pace=pace),
)
to_gateway = st.one_of(
    built(
        messages.Welcome,
        protocol=counts,
        instance_id=texts,
        pid=counts,
        model=texts,
        max_model_len=counts,
        block_size=counts,
        kv_blocks_total=counts,
        engine=texts,
    ),
    built(
        messages.Accepted,
        request_id=texts,
        prompt_tokens=counts,
        reasoning=st.booleans(),
    ),
    built(messages.Rejected, request_id=texts, code=texts, message=texts, param=maybe(texts)),
    built(
        messages.Step,
        sequence=counts,
        runs=st.lists(token_run, max_size=3).map(tuple),
        stats=stats,
    ),
    built(messages.Heartbeat, since_step_s=seconds, stats=stats),
)


@given(to_worker)
def test_what_the_gateway_says_arrives_unchanged(message: ToWorker) -> None:
    assert messages.decode_to_worker(messages.encode(message)) == message


@given(to_gateway)
def test_what_the_worker_says_arrives_unchanged(message: ToGateway) -> None:
    assert messages.decode_to_gateway(messages.encode(message)) == message


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (b"not json", "malformed"),
        (b"[]", "Expected `object`"),
        (b"{}", "type"),
        (b'{"type":"step"}', "step"),
        (b'{"type":"cancel"}', "request_id"),
        (b'{"type":"cancel","request_id":7}', r"\$.request_id"),
    ],
)
def test_wrong_frames_are_named(frame: bytes, complaint: str) -> None:
    with pytest.raises(msgspec.DecodeError, match=complaint):
        messages.decode_to_worker(frame)


def test_fields_of_a_later_version_are_ignored() -> None:
    frame = b'{"type":"cancel","request_id":"a","why":"later"}'
    assert messages.decode_to_worker(frame) == messages.Cancel(request_id="a")
