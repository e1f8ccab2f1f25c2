from __future__ import annotations

import csv
import gzip
import io
import json
import math
import random
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.workloads.arrivals import Arrival
from bench.workloads.lengths import Lengths
from bench.workloads.reasoning_split import SplitError, split_named
from bench.workloads.traces import FORMATS, TraceError, load_trace, mean_rate, read_trace, replay

# A few lines of each in the form in which it is published.
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-11 23:59:59.999163+00:00,2162,5
2024-05-12 00:00:00+00:00,2399,6
2024-05-12 02:00:01.5+02:00,76,15
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
118,GPT-4,417,276,693,API log
"""
BURSTGPT_3 = """\
Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
0.5,9f3a,3.2,ChatGPT,472,18,490,Conversation log
2.5,,1.0,GPT-4,417,276,693,API log
"""
MOONCAKE = """{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}
{"timestamp": 27482, "input_length": 28, "output_length": 1, "hash_ids": [3]}
"""
PLAIN = """t_s,client,prompt_tokens,reasoning_tokens,answer_tokens
10.5,37,253,585,95
12.25,,13,349,416
"""
PLAIN_JSON = """{"t_s": 10.5, "prompt_tokens": 253, "reasoning_tokens": 585, "answer_tokens": 95}

{"t_s": 12.25, "prompt_tokens": 13, "reasoning_tokens": 349, "answer_tokens": 416, "client": 7}
"""
UNSPLIT = "t_s,prompt_tokens,output_tokens\n0.0,374,44\n"


def write(tmp_path: Path, text: str | bytes, name: str = "trace") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def brief(arrivals: list[Arrival]) -> list[tuple[float, int, int, int]]:
    found = ((arrival.at_s, arrival.lengths) for arrival in arrivals)
    return [(at_s, of.prompt, of.reasoning, of.answer) for at_s, of in found]


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        (AZURE, "azure", [(0, 374, 1, 43), (4.314579, 396, 1, 108), (4.541877, 879, 1, 54)]),
        (AZURE_2024, "azure", [(0, 2162, 1, 4), (0.000837, 2399, 1, 5), (1.500837, 76, 1, 14)]),
        (BURSTGPT, "burstgpt", [(0, 472, 1, 17), (113, 417, 1, 275)]),
        (BURSTGPT_3, "burstgpt", [(0, 472, 1, 17), (2, 417, 1, 275)]),
        (MOONCAKE, "mooncake", [(0, 6758, 1, 499), (27.482, 28, 1, 1)]),
        (PLAIN, "plain", [(0, 253, 585, 95), (1.75, 13, 349, 416)]),
        (PLAIN_JSON, "plain", [(0, 253, 585, 95), (1.75, 13, 349, 416)]),
        (UNSPLIT, "plain", [(0, 374, 1, 43)]),
    ],
)
def test_every_format_as_it_is_published(
    tmp_path: Path, text: str, name: str, expected: list[tuple[float, int, int, int]]
) -> None:
    path = write(tmp_path, text)
    trace = load_trace(path, split="none")
    assert brief(list(trace.arrivals)) == expected
    assert trace.format == name
    assert trace.unanswered == (1 if text is BURSTGPT else 0)
    assert trace.split == (None if "reasoning" in text else "none")
    assert read_trace(path, name, split="none") == list(trace.arrivals)
    assert name in FORMATS


def test_who_sent_it(tmp_path: Path) -> None:
    for text, clients in (
        (PLAIN, ["37", None]),
        (PLAIN_JSON, [None, "7"]),
        (BURSTGPT_3, ["9f3a", None]),
        (AZURE, [None, None, None]),
    ):
        found = read_trace(write(tmp_path, text), split="none")
        assert [arrival.client for arrival in found] == clients


@pytest.mark.parametrize(
    "changed",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: gzip.compress(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()),
        lambda text: text.rstrip("\n").encode(),
        lambda text: f"\n{text}\n\n".encode(),
    ],
    ids=["crlf", "bom", "gzip", "all three", "no last newline", "empty lines"],
)
@pytest.mark.parametrize("text", [AZURE, MOONCAKE, PLAIN], ids=["azure", "mooncake", "plain"])
def test_how_files_come(tmp_path: Path, text: str, changed: object) -> None:
    assert callable(changed)
    plain = read_trace(write(tmp_path, text), split="none")
    assert read_trace(write(tmp_path, changed(text), "changed"), split="none") == plain


def test_quoted_fields(tmp_path: Path) -> None:
    text = '"t_s","client","prompt_tokens","reasoning_tokens","answer_tokens"\n'
    text += '"1.5","a ""b"", c\nd"," 3 ","4.0",5\n2,x,3,four,5\n'
    path = write(tmp_path, text)
    with pytest.raises(TraceError, match="trace:4: reasoning_tokens: 'four'") as caught:
        read_trace(path)
    assert (caught.value.line, caught.value.column) == (4, "reasoning_tokens")
    path = write(tmp_path, text.replace("four", "4"))
    assert read_trace(path)[0] == Arrival(0.0, Lengths(3, 4, 5), 'a "b", c\nd')


def test_requests_are_sorted_and_those_of_one_time_keep_their_order(tmp_path: Path) -> None:
    lines = ["t_s,prompt_tokens,reasoning_tokens,answer_tokens"]
    lines += [f"{at},{prompt},1,1" for prompt, at in enumerate([7, 3, 7, 3, 5], 1)]
    found = brief(read_trace(write(tmp_path, "\n".join(lines))))
    assert [(at_s, prompt) for at_s, prompt, _, _ in found] == [
        (0, 2),
        (0, 4),
        (2, 5),
        (4, 1),
        (4, 3),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,5,6", "3: has 3 fields, not 4"),
        ("1,5,6,7,8", "3: has 5 fields, not 4"),
        (",5,6,7", "3: t_s: is missing"),
        ("1,5, ,7", "3: reasoning_tokens: is missing"),
        ("nan,5,6,7", "3: t_s: 'nan' is not a finite number"),
        ("inf,5,6,7", "3: t_s: 'inf' is not a finite number"),
        ("-1,5,6,7", "3: t_s: -1 is below 0"),
        ("1e11,5,6,7", "3: t_s: 1e11 is above 10000000000"),
        ("1,NaN,6,7", "3: prompt_tokens: 'NaN' is not a finite number"),
        ("1,-5,6,7", "3: prompt_tokens: -5 is below 0"),
        ("1,5,6.5,7", "3: reasoning_tokens: 6.5 is not a whole number"),
        ("1,5,1_000,7", "3: reasoning_tokens: '1_000' is not a finite number"),
        ("1,5,6,0x7", "3: answer_tokens: '0x7' is not a finite number"),
        ("1,5,6,10000001", "3: answer_tokens: 10000001 is above 10000000"),
        ('1,5,6,"7', "3: CSV is malformed: unexpected end of data"),
        ('1,5,"6"6,7', "3: CSV is malformed"),
    ],
)
def test_errors_name_file_line_and_column(tmp_path: Path, line: str, message: str) -> None:
    text = f"t_s,prompt_tokens,reasoning_tokens,answer_tokens\n0,1,2,3\n{line}\n"
    with pytest.raises(TraceError, match=re.escape(f"trace:{message}")) as caught:
        read_trace(write(tmp_path, text))
    assert caught.value.line == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (AZURE + "16.11.2023 18:15,1,2\n", "trace:5: TIMESTAMP: '16.11.2023 18:15' is not a time"),
        (AZURE + "2023-02-30 10:00:00,1,2\n", "trace:5: TIMESTAMP: '2023-02-30 10:00:00': day is"),
        (AZURE + "2023-11-16 18:15:46,1,\n", "trace:5: GeneratedTokens: is missing"),
        (BURSTGPT + "9,x,-1,2,1,API log\n", "trace:5: Request tokens: -1 is below 0"),
        (MOONCAKE + '{"timestamp": 1}\n', "trace:3: input_length: is missing"),
        (MOONCAKE + '{"timestamp": 1\n', "trace:3: Input data was truncated"),
        (MOONCAKE + "[1, 2]\n", "trace:3: Expected `object`, got `array`"),
        (
            MOONCAKE + '{"timestamp": true, "input_length": 1, "output_length": 1}',
            "trace:3: timest",
        ),
        (MOONCAKE + '{"timestamp": NaN}\n', "trace:3: JSON is malformed"),
        (MOONCAKE.replace("500", "[5]"), "trace:1: output_length: '[5]' is not a finite number"),
        (PLAIN.replace(",answer_tokens", ",later"), "trace:2: answer_tokens: is missing"),
    ],
)
def test_errors_of_the_other_formats(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TraceError, match=re.escape(message)):
        read_trace(write(tmp_path, text), split="none")


def test_files_that_are_no_traces(tmp_path: Path) -> None:
    def fails(text: str | bytes, message: str, **options: str) -> None:
        with pytest.raises(TraceError, match=message):
            read_trace(write(tmp_path, text), **options)

    fails("", "trace: is empty")
    fails("\n \n", "trace: is empty")
    fails(PLAIN.splitlines()[0], "trace: holds no request below its header")
    fails("a,b,a\n1,2,3\n", "trace:1: a: is there twice")
    fails("a,b\n1,2\n", "has the columns of no known format: a, b .*mooncake: input_length")
    fails("client,window_start_s\n1,2\n", "is a table of clients, not of requests")
    fails(
        PLAIN,
        "is not a trace of format azure: it lacks ContextTokens, GeneratedTokens",
        format="azure",
    )
    fails(PLAIN, "unknown format 'csv'; known are auto, azure, burstgpt", format="csv")
    fails(PLAIN.encode() + b"\xff\n", "trace:4: not UTF-8 text")
    fails(gzip.compress(PLAIN.encode())[:-9], "trace: the gzip file is broken")
    fails(gzip.compress(PLAIN.encode())[:-8] + bytes(8), "the gzip file is broken: CRC check")
    fails(gzip.compress(PLAIN.encode())[:10] + bytes(99), "trace: the gzip file is broken")
    fails("t_s,prompt_tokens,output_tokens\n0,5,0\n", r"none of its requests \(1\)", split="none")
    with pytest.raises(TraceError, match="absent: No such file"):
        read_trace(tmp_path / "absent")
    with pytest.raises(TraceError, match="Is a directory"):
        read_trace(tmp_path)


@pytest.mark.parametrize("text", [AZURE, BURSTGPT, MOONCAKE, UNSPLIT])
def test_what_is_reasoning_is_never_decided_silently(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TraceError, match="has no reasoning lengths; choose a split: none, "):
        read_trace(path)
    with pytest.raises(SplitError, match="unknown split 'half'; known are none, servegen-r1"):
        read_trace(path, split="half")


def test_splits() -> None:
    rng = random.Random(0)
    assert split_named("none")(5, 10, rng) == Lengths(5, 1, 9)
    assert split_named("4:1")(5, 10, rng) == Lengths(5, 8, 2)
    assert split_named("0:1")(0, 1, rng) == Lengths(1, 1, 1)
    shares = [split_named("servegen-r1")(5, 1000, rng).reasoning / 1000 for _ in range(4000)]
    assert sum(shares) / len(shares) == pytest.approx(0.70, abs=0.02)
    for name in ("0:0", "4", "4:-1", "a:b", ""):
        with pytest.raises(SplitError):
            split_named(name)


def test_a_split_is_drawn_from_the_seed(tmp_path: Path) -> None:
    path = write(tmp_path, UNSPLIT + "1,5,500\n" * 20)
    first, again, other = (read_trace(path, split="servegen-r1", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert [a.lengths.reasoning + a.lengths.answer for a in other] == [44, *[500] * 20]


def test_the_first_requests_only_and_progress(tmp_path: Path) -> None:
    path = write(tmp_path, UNSPLIT + "1,5,500\n" * 25_000)
    counts: list[int] = []
    assert len(load_trace(path, split="none", progress=counts.append).arrivals) == 25_001
    assert counts == [10_000, 20_000]
    assert len(load_trace(path, split="none", limit=3).arrivals) == 3


requests = st.lists(
    st.tuples(
        st.floats(0, 1e9),
        st.integers(1, 10_000_000),
        st.integers(1, 5_000_000),
        st.integers(1, 5_000_000),
        st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=requests, as_json=st.booleans(), zipped=st.booleans())
def test_no_request_is_lost_or_overtakes(
    tmp_path: Path,
    found: list[tuple[float, int, int, int, str | None]],
    as_json: bool,
    zipped: bool,
) -> None:
    columns = ["t_s", "prompt_tokens", "reasoning_tokens", "answer_tokens", "client"]
    text = io.StringIO()
    if as_json:
        text.writelines(f"{json.dumps(dict(zip(columns, one, strict=True)))}\n" for one in found)
    else:
        writer = csv.writer(text)
        writer.writerows([columns, *found])
    raw = text.getvalue().encode()
    read = read_trace(write(tmp_path, gzip.compress(raw, 1) if zipped else raw))
    first = min(at for at, *_ in found)
    assert [
        (a.at_s, a.lengths.prompt, a.lengths.reasoning, a.lengths.answer, a.client) for a in read
    ] == [
        (at - first, *lengths, client and (client.strip() or None))
        for at, *lengths, client in sorted(found, key=lambda one: one[0])
    ]


traces = st.lists(st.floats(0, 1e6), min_size=2, max_size=30).map(
    lambda times: [
        Arrival(at - min(times), Lengths(number, 1, 1)) for number, at in enumerate(sorted(times))
    ]
)


@given(trace=traces, rate=st.floats(0.001, 1000))
def test_a_replay_keeps_the_requests_and_scales_the_time(trace: list[Arrival], rate: float) -> None:
    assert list(replay(trace)) == trace
    own = mean_rate(trace)
    if own is None:
        with pytest.raises(ValueError, match="all requests of the trace come at once"):
            replay(trace, rate=rate)
        return
    found = list(replay(trace, rate=rate))
    assert [a.lengths for a in found] == [a.lengths for a in trace]
    for fast, slow in zip(found, trace, strict=True):
        assert fast.at_s * rate == pytest.approx(slow.at_s * own, rel=1e-9, abs=1e-9)


@given(trace=traces, seed=st.integers() | st.text(max_size=5))
def test_another_seed_begins_elsewhere_and_loses_nothing(
    trace: list[Arrival], seed: int | str
) -> None:
    found = list(replay(trace, seed=seed))
    assert found == list(replay(trace, seed=seed))
    assert sorted(a.lengths.prompt for a in found) == [a.lengths.prompt for a in trace]
    first = found[0].lengths.prompt
    assert [a.lengths.prompt for a in found] == [
        (first + i) % len(trace) for i in range(len(trace))
    ]
    times = [a.at_s for a in found]
    assert times[0] == 0
    assert all(b >= a - 1e-9 * abs(a) for a, b in pairwise(times))


def test_seeds_of_a_replay() -> None:
    trace = [Arrival(float(second), Lengths(second, 1, 1)) for second in range(100)]
    begins = {seed: next(replay(trace, seed=seed)).lengths.prompt for seed in range(20)}
    assert begins[0] == 0
    assert len(set(begins.values())) > 10
    turned = list(replay(trace, seed=1, rate=2.0))
    assert [arrival.at_s for arrival in turned] == pytest.approx([i / 2 for i in range(100)])
    assert [a.at_s for a in replay(trace, rate=math.inf)] == [0.0] * 100
    assert list(replay([])) == []
    assert list(replay(trace[:1], rate=5.0, seed=3)) == trace[:1]
    for rate in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="must be above 0"):
            replay(trace, rate=rate)
