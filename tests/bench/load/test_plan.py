from __future__ import annotations

import math
import random
import statistics
from itertools import pairwise
from pathlib import Path

import pytest

from bench.load.conversation import Conversation
from bench.load.plan import arrival_times, plan_requests
from bench.load.prompts import PromptError, file_prompts, problem_prompts
from tests.bench.support.flags import options


def gaps(times: list[float]) -> list[float]:
    return [b - a for a, b in pairwise([0.0, *times])]


def test_arrivals_come_from_the_seed() -> None:
    first, same, other = (arrival_times(50, 2.0, 1.0, random.Random(s)) for s in (1, 1, 2))
    assert first == same
    assert first != other


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_arrivals_have_the_rate_and_the_burstiness(burstiness: float) -> None:
    times = arrival_times(20_000, 5.0, burstiness, random.Random(7))
    assert times[-1] == pytest.approx(20_000 / 5.0)
    assert times == sorted(times)
    spread = statistics.pstdev(gaps(times)) / statistics.fmean(gaps(times))
    assert spread == pytest.approx(1 / math.sqrt(burstiness), rel=0.05)


def test_poisson_gaps_are_exponential() -> None:
    found = gaps(arrival_times(20_000, 1.0, 1.0, random.Random(3)))
    for bound in (0.1, 0.5, 1.0, 2.0):
        share = sum(gap > bound for gap in found) / len(found)
        assert share == pytest.approx(math.exp(-bound), abs=0.015)


def test_limits_of_rate_and_burstiness() -> None:
    assert arrival_times(3, math.inf, 1.0, random.Random(0)) == [0.0, 0.0, 0.0]
    assert arrival_times(3, 2.0, math.inf, random.Random(0)) == [0.5, 1.0, 1.5]


def test_the_plan_comes_from_the_seed() -> None:
    flags = "--num-prompts 8 --reasoning-len 50-200 --answer-len 60:20".split()
    assert plan_requests(options(*flags)) == plan_requests(options(*flags))
    assert plan_requests(options(*flags)) != plan_requests(options(*flags, "--seed", "1"))


def test_another_rate_asks_the_same_questions() -> None:
    slow, fast = (
        plan_requests(options("--request-rate", rate, "--reasoning-len=9-99", "--answer-len=9-99"))
        for rate in ("1", "4")
    )
    assert [p.prompt for p in slow] == [p.prompt for p in fast]
    assert [p.forced for p in slow] == [p.forced for p in fast]
    assert slow[-1].at_s == pytest.approx(4 * fast[-1].at_s)


def test_forced_lengths_are_drawn_within_bounds() -> None:
    flags = "--num-prompts 300 --reasoning-len 50-60 --answer-len 7".split()
    forced = [planned.forced for planned in plan_requests(options(*flags))]
    assert {lengths.reasoning_tokens for lengths in forced if lengths} == set(range(50, 61))
    assert {lengths.answer_tokens for lengths in forced if lengths} == {7}


def test_the_body_of_a_request() -> None:
    plain = options("--num-prompts", "1", "--tpot", "0.05", "--families", "addition")
    planned = plan_requests(plain)[0]
    assert planned.prompt.problem is not None
    assert Conversation(plain, "m").body(planned) == {
        "model": "m",
        "input": [{"role": "user", "content": planned.prompt.problem.question}],
        "pacing": {"tpot_s": 0.05},
    }
    full = options("--num-prompts=1", "--no-pacing", "--max-tokens=99", "--reasoning-len=5",
                   "--answer-len=6")  # fmt: skip
    body = Conversation(full, "m").body(plan_requests(full)[0])
    assert body["pacing"] is False
    assert body["max_output_tokens"] == 99
    assert body["forced_lengths"] == {"reasoning_tokens": 5, "answer_tokens": 6}


def test_problems_of_chosen_families() -> None:
    prompts = problem_prompts(40, ["addition", "letters"], random.Random(0))
    assert {prompt.family for prompt in prompts} == {"addition", "letters"}
    assert len({prompt.messages for prompt in prompts}) > 30  # fresh ones
    problem = prompts[0].problem
    assert problem is not None
    assert prompts[0].judge(problem.answer) is True
    assert prompts[0].judge("I do not know.") is False
    with pytest.raises(PromptError, match="unknown family 'astrology'; known are addition"):
        problem_prompts(1, ["astrology"], random.Random(0))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "prompts"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_text_file_is_one_prompt_a_line_from_the_top_again(tmp_path: Path) -> None:
    prompts = file_prompts(5, write(tmp_path, "Hello \n\nWhat is {1}?\n"))
    asked = [prompt.messages[0].content for prompt in prompts]
    assert asked == ["Hello", "What is {1}?", "Hello", "What is {1}?", "Hello"]
    assert prompts[0].family is None
    assert prompts[0].judge("anything") is None


def test_a_json_lines_file(tmp_path: Path) -> None:
    prompts = file_prompts(
        2,
        write(
            tmp_path,
            '{"prompt": "One\u2028line", "id": 3}\n'
            '{"messages": [{"role": "system", "content": "Be brief."},'
            ' {"role": "user", "content": "Hi"}]}\n',
        ),
    )
    assert [(m.role, m.content) for m in prompts[0].messages] == [("user", "One\u2028line")]
    assert [m.role for m in prompts[1].messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "prompts: holds no prompt"),
        (" \n\n", "prompts: holds no prompt"),
        ('{"prompt": "a"}\n\n{"prompt": }', "prompts:3: JSON is malformed"),
        ('{"prompt": "a"}\nb', "prompts:2: JSON is malformed"),
        ("{}", 'prompts:1: needs either "prompt" or "messages"'),
        ('{"prompt": "a", "messages": []}', 'prompts:1: needs either "prompt" or "messages"'),
        ('{"prompt": 5}', "prompts:1: Expected `str | null`, got `int`"),
        ('{"prompt": " "}', "prompts:1: the prompt is empty"),
        ('{"messages": []}', "prompts:1: the prompt is empty"),
        ('{"messages": [{"role": "wizard", "content": "a"}]}', "prompts:1: Invalid enum value"),
        ('{"messages": [{"role": "user"}]}', "prompts:1: Object missing required field `content`"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PromptError, match="prompts:") as caught:
        file_prompts(1, write(tmp_path, text))
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="absent: No such file"):
        file_prompts(1, tmp_path / "absent")
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PromptError, match="binary: not UTF-8 text"):
        file_prompts(1, path)
