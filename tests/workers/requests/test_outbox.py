from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.messages import (
    Accepted,
    Finish,
    Heartbeat,
    PhaseCounts,
    Rejected,
    Step,
    StepStats,
    TokenRun,
    answers_after,
)
from workers.requests.outbox import Outbox


def stats(steps: int) -> StepStats:
    return StepStats(
        reasoning=PhaseCounts(),
        answering=PhaseCounts(),
        kv_blocks_used=0,
        kv_blocks_total=1,
        preemptions_total=0,
        steps_total=steps,
    )


def run(
    request_id: str,
    position: int,
    *token_ids: int,
    boundary: int | None = None,
    finish: Finish | None = None,
) -> TokenRun:
    return TokenRun(
        request_id=request_id,
        position=position,
        token_ids=token_ids,
        texts=tuple(map(str, token_ids)),
        turns=answers_after(boundary),
        finish=finish,
    )


def accepted(request_id: str) -> Accepted:
    return Accepted(request_id=request_id, prompt_tokens=1, reasoning=True)


def test_steps_that_wait_become_one_with_the_newest_statistics() -> None:
    outbox = Outbox()
    outbox.put_step((run("a", 0, 1), run("b", 0, 7)), stats(1))
    outbox.put_step((run("a", 1, 2, 3, boundary=1),), stats(2))
    outbox.put_step((run("a", 3, 4, finish=Finish(reason="stop")),), stats(3))
    assert outbox.tokens == 5
    assert outbox.take() == Step(
        sequence=0,
        runs=(run("a", 0, 1, 2, 3, 4, boundary=2, finish=Finish(reason="stop")), run("b", 0, 7)),
        stats=stats(3),
    )
    assert outbox.tokens == 0
    assert outbox.take() is None
    assert not outbox


def test_answers_keep_their_place_between_steps() -> None:
    outbox = Outbox()
    outbox.put_step((run("a", 0, 1),), stats(1))
    outbox.put(accepted("b"))
    outbox.put_step((run("b", 0, 2),), stats(2))
    rejected = Rejected(request_id="c", code="x", message="y")
    outbox.put(rejected)
    taken = [outbox.take() for _ in range(5)]
    assert taken == [
        Step(sequence=0, runs=(run("a", 0, 1),), stats=stats(1)),
        accepted("b"),
        Step(sequence=1, runs=(run("b", 0, 2),), stats=stats(2)),
        rejected,
        None,
    ]


def test_only_the_newest_heartbeat_is_kept_and_it_comes_last() -> None:
    outbox = Outbox()
    for steps in (1, 2):
        outbox.put_heartbeat(Heartbeat(since_step_s=0.0, stats=stats(steps)))
    outbox.put(accepted("a"))
    assert outbox.take() == accepted("a")
    assert outbox.take() == Heartbeat(since_step_s=0.0, stats=stats(2))
    assert outbox.take() is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans()), max_size=60))
def test_no_token_is_lost_doubled_or_reordered(steps: list[tuple[str, int, bool]]) -> None:
    outbox = Outbox()
    produced: dict[str, list[int]] = {}
    received: dict[str, list[int]] = {}
    sequences = []

    def receive() -> None:
        message = outbox.take()
        if not isinstance(message, Step):
            return
        sequences.append(message.sequence)
        for part in message.runs:
            tokens = received.setdefault(part.request_id, [])
            assert part.position == len(tokens)
            tokens += part.token_ids

    for number, (request_id, count, reads) in enumerate(steps):
        tokens = produced.setdefault(request_id, [])
        new = tuple(range(len(tokens), len(tokens) + count))
        outbox.put_step((run(request_id, len(tokens), *new),), stats(number))
        tokens += new
        waiting = sum(map(len, produced.values())) - sum(map(len, received.values()))
        assert outbox.tokens == waiting
        if reads:
            receive()
    while outbox:
        receive()
    assert received == produced
    assert sequences == list(range(len(sequences)))
