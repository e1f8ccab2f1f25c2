"""The step log: its lines, its bounded size, and that idle time does not count as a step."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from workers import step_log
from workers.step_log import Header, LoggedStep, StepLog, StepLogError, former, read_step_log

HEADER = Header(
    model="tiny",
    device="cpu",
    layers=4,
    heads=2,
    head_dim=64,
    dtype_bytes=2,
    block_size=32,
    kv_blocks=101,
)


@dataclasses.dataclass
class Hands:
    """Both clocks, which the test moves."""

    wall_s: float = 100.0
    processor_s: float = 7.0

    def move(self, wall_s: float, processor_s: float) -> None:
        self.wall_s += wall_s
        self.processor_s += processor_s


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    moved = Hands()
    monkeypatch.setattr(step_log, "_clocks", lambda: (moved.wall_s, moved.processor_s))
    return moved


def request(computed: int, chunk: bool = False) -> Any:
    """A record of a request, as vLLM leaves it after `schedule`."""
    return SimpleNamespace(num_computed_tokens=computed, is_prefill_chunk=chunk)


def test_a_line_says_what_the_step_held_and_took(tmp_path: Path, hands: Hands) -> None:
    log = StepLog(path := tmp_path / "engine.steps", HEADER)
    log.arrived(idle=True)
    hands.move(0.5, 0.25)
    requests = {
        "decoding": request(41),
        "decoding too": request(60),
        "prompt": request(30),
        "second chunk": request(300, chunk=True),
        "chunk of one": request(1, chunk=True),
    }
    counts = {"decoding": 1, "decoding too": 1, "prompt": 30, "second chunk": 100}
    log.scheduled(counts | {"chunk of one": 1}, requests)
    hands.move(1.0, 0.5)
    log.ended(more=True)
    hands.move(0.125, 0.0)  # between two steps: the second one's
    log.scheduled({"decoding": 1}, {"decoding": request(42)})
    hands.move(2.0, 1.0)
    log.ended(more=False)
    header, steps = read_step_log(path)
    assert header == HEADER
    squares = 30 * 30 + 100 * (2 * 200 + 100) + 1
    assert steps == [
        LoggedStep(1.5, 0.75, 2, 101, 131, squares, 3),
        LoggedStep(2.125, 1.0, 1, 42, 0, 0, 0),
    ]


def test_time_without_work_belongs_to_no_step(tmp_path: Path, hands: Hands) -> None:
    log = StepLog(path := tmp_path / "engine.steps", HEADER)

    def step(more: bool) -> None:
        log.scheduled({"a": 1}, {"a": request(9)})
        hands.move(1.0, 1.0)
        log.ended(more=more)

    log.arrived(idle=True)
    step(more=False)
    hands.move(50.0, 0.0)
    log.arrived(idle=True)
    step(more=True)
    hands.move(60.0, 0.0)  # the requests that were left are cancelled
    log.arrived(idle=True)
    hands.move(0.25, 0.25)
    log.arrived(idle=False)
    step(more=True)
    log.scheduled({}, {})  # waits for KV: nothing is computed
    hands.move(9.0, 0.0)
    log.ended(more=True)
    step(more=False)
    assert [s.wall_s for s in read_step_log(path)[1]] == [1.0, 1.0, 1.25, 1.0]


def test_steps_that_overlap_last_from_one_outcome_to_the_next(tmp_path: Path, hands: Hands) -> None:
    log = StepLog(path := tmp_path / "engine.steps", HEADER)
    log.arrived(idle=True)
    log.scheduled({"a": 5}, {"a": request(5)})
    hands.move(0.5, 0.1)
    log.scheduled({"a": 1}, {"a": request(6)})
    hands.move(0.5, 0.1)
    log.ended(more=True)
    hands.move(2.0, 0.1)
    log.ended(more=False)
    assert [(s.wall_s, s.prefill_tokens) for s in read_step_log(path)[1]] == [(1.0, 5), (2.0, 0)]


def test_a_full_file_makes_room(tmp_path: Path, hands: Hands) -> None:
    path = tmp_path / "engine.steps"
    path.write_text("of an engine before\n")
    log = StepLog(path, HEADER, most_bytes=1000)
    assert former(path).read_text() == "of an engine before\n"
    for _ in range(200):
        log.arrived(idle=True)
        log.scheduled({"a": 1}, {"a": request(9)})
        hands.move(1.0, 1.0)
        log.ended(more=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["engine.steps", "engine.steps.1"]
    for file in tmp_path.iterdir():
        assert file.stat().st_size < 1100
        assert read_step_log(file)[0] == HEADER
    assert read_step_log(former(path))[1]


def test_the_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "engine.steps"
    head = msgspec.json.encode(HEADER).decode()
    path.write_text(f"{head}\n[0.5,0.25,1,9,0,0,0]\n[0.5,0.2")
    assert read_step_log(path)[1] == [LoggedStep(0.5, 0.25, 1, 9, 0, 0, 0)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        ('{"a":1}\n', ":1: not the first line"),
        ("HEAD9\n", ":1: version 9"),
        ("HEAD\n[0.5,0.5,1,9,0,0,0]\n[0.5]\n", ":3: "),
        ("HEAD\n[0.5,0.5,1,-9,0,0,0]\n", ":2: a number is negative"),
    ],
)
def test_a_wrong_file_is_refused_by_its_line(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "engine.steps"
    newer = msgspec.structs.replace(HEADER, version=9)
    text = text.replace("HEAD9", msgspec.json.encode(newer).decode())
    path.write_text(text.replace("HEAD", msgspec.json.encode(HEADER).decode()))
    with pytest.raises(StepLogError, match=named) as caught:
        read_step_log(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StepLogError, match="No such file"):
        read_step_log(tmp_path / "none.steps")


def config(path: Path | str | None) -> Any:
    additional = {} if path is None else {step_log.CONFIG_KEY: str(path)}
    return SimpleNamespace(
        additional_config=additional,
        model_config=SimpleNamespace(model="tiny"),
        device_config=SimpleNamespace(device_type="cpu"),
        parallel_config=SimpleNamespace(tensor_parallel_size=2),
        cache_config=SimpleNamespace(block_size=32),
    )


def kv_config(spec: Any) -> Any:
    group = SimpleNamespace(layer_names=["0", "1", "2", "3"], kv_cache_spec=spec)
    return SimpleNamespace(kv_cache_groups=[group], num_blocks=101)


HEADS = SimpleNamespace(num_kv_heads=1, head_size=64, dtype=SimpleNamespace(itemsize=2))


def test_the_engine_s_configuration_says_whether_and_where(tmp_path: Path) -> None:
    assert StepLog.of(config(None), kv_config(HEADS)) is None
    path = tmp_path / "engine.steps"
    assert StepLog.of(config(path), kv_config(HEADS)) is not None
    assert read_step_log(path) == (HEADER, [])
    with pytest.raises(ValueError, match=r"step_log: .*none"):
        StepLog.of(config(tmp_path / "none" / "engine.steps"), kv_config(HEADS))
    with pytest.raises(ValueError, match="heads"):
        StepLog.of(config(path), kv_config(SimpleNamespace()))
