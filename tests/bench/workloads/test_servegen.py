from __future__ import annotations

import json
import random
import re
from itertools import islice
from pathlib import Path

import pytest

from bench.workloads.distributions import Probabilities, Quantiles
from bench.workloads.lengths import Lengths, SharedLengths
from bench.workloads.make_servegen_tables import main
from bench.workloads.servegen import deepseek_r1, is_table, read_clients
from bench.workloads.table_reader import TraceError

LENGTHS = SharedLengths(*(Quantiles((0, 1), (value, value)) for value in (7.0, 20.0, 0.5)))

TABLE = """client,window_start_s,rate_rps,iat_cv,family,shape,scale
0,1200,0.5,0.9,Gamma,1.2,2.0
0,1800,0.25,1.1,Weibull,0.9,2.4
12,2400,2,3.0,Gamma,0.1,9
"""

# As published: no header, silent windows without a family, Python's way to write a dict.
CHUNKS = {
    "chunk-0-trace.csv": "0,0,0,,0,0\n600,0.5,1.0,Gamma,1.0,2.0\n1200,0.25,2.0,Weibull,0.7,3.1\n",
    "chunk-0-dataset.json": """{
        "0": {"input_tokens": "{}", "output_tokens": "{}", "reason_ratio": "{}"},
        "600": {"input_tokens": "{7: 1.0}", "output_tokens": "{10: 0.5, 30: 0.5}",
                "reason_ratio": "{0.0: 0.0, 0.5: 1.0}"},
        "1200": {"input_tokens": "{9: 1.0}", "output_tokens": "{10: 1e0}",
                 "reason_ratio": "{0.2: 1}"}
    }""",
    "chunk-2-trace.csv": "0,0,0,,0,0\n600,0,0,,0,0\n1200,0,0,,0,0\n",
    "chunk-2-dataset.json": "{}",
}


def folder(path: Path, **changed: str) -> Path:
    for name, text in CHUNKS.items():
        (path / name).write_text(text)
    for name, text in changed.items():
        kind, _, suffix = name.rpartition("_")
        (path / f"chunk-0-{kind}.{suffix}").write_text(text)
    return path


def span(prompts: str) -> str:
    laws = {"input_tokens": prompts, "output_tokens": "{1: 1}", "reason_ratio": "{0: 1}"}
    return json.dumps({"0": laws})


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "clients.csv"
    path.write_text(text)
    return path


def test_a_table_of_clients(tmp_path: Path) -> None:
    path = write(tmp_path, TABLE)
    assert is_table(path)
    mixture = read_clients(path, LENGTHS)
    assert (mixture.start_s, mixture.end_s) == (1200.0, 3000.0)
    assert mixture.rate == pytest.approx((0.5 + 0.25 + 2) / 3)
    first, second = mixture.clients
    assert [(w.start_s, w.rate, w.family, w.shape) for w in first.windows] == [
        (1200.0, 0.5, "Gamma", 1.2),
        (1800.0, 0.25, "Weibull", 0.9),
        (2400.0, 0.0, "Gamma", 1.2),  # silent
    ]
    assert [(w.start_s, w.rate) for w in second.windows] == [(1200.0, 0.0), (2400.0, 2.0)]
    late = [a for a in islice(mixture.arrivals(None, 1), 3000) if a.client == "12"]
    assert late
    assert all(arrival.at_s % 1800 >= 1200 for arrival in late)


def test_a_folder_as_published(tmp_path: Path) -> None:
    mixture = read_clients(folder(tmp_path))
    assert [client.name for client in mixture.clients] == ["0"]  # the other never sends anything
    assert (mixture.start_s, mixture.end_s) == (0.0, 1800.0)
    silent, busy, late = mixture.clients[0].windows
    assert silent.rate == 0
    assert (busy.rate, busy.family, busy.shape) == (0.5, "Gamma", 1.0)
    assert (late.rate, late.family, late.shape) == (0.25, "Weibull", 0.7)
    rng = random.Random(0)
    assert {busy.lengths.draw(rng) for _ in range(50)} == {Lengths(7, 5, 5), Lengths(7, 15, 15)}
    assert late.lengths.draw(rng) == Lengths(9, 2, 8)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,1800,x,1,Gamma,1,1", "5: rate_rps: 'x' is not a finite number"),
        ("1,1800,-1,1,Gamma,1,1", "5: rate_rps: -1 is below 0"),
        ("1,1800,inf,1,Gamma,1,1", "5: rate_rps: 'inf' is not a finite number"),
        ("1,1800,1,1,Pareto,1,1", "5: family: 'Pareto' is neither Gamma nor Weibull"),
        ("1,1800,1,1,,1,1", "5: family: is missing"),
        ("1,1800,1,1,Gamma,0,1", "5: shape: 0 is below 0.01"),
        ("0,1800,1,1,Gamma,1,1", "5: window_start_s: client 0 has this window twice"),
        (",1800,1,1,Gamma,1,1", "5: client: is missing"),
        ("1,1800,1", "5: has 3 fields, not 7"),
    ],
)
def test_errors_of_a_table_name_line_and_column(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, TABLE + line + "\n")
    with pytest.raises(TraceError, match=re.escape(f"clients.csv:{message}")):
        read_clients(path, LENGTHS)


def test_tables_that_hold_nothing(tmp_path: Path) -> None:
    header = TABLE.splitlines()[0]
    with pytest.raises(TraceError, match="holds no client"):
        read_clients(write(tmp_path, header + "\n"), LENGTHS)
    with pytest.raises(TraceError, match="no client sends anything"):
        read_clients(write(tmp_path, header + "\n0,0,0,1,Gamma,1,1\n"), LENGTHS)
    with pytest.raises(TraceError, match="has no lengths"):
        read_clients(write(tmp_path, TABLE))
    with pytest.raises(TraceError, match="neither a folder nor a table"):
        read_clients(write(tmp_path, "a,b\n1,2\n"))
    with pytest.raises(TraceError, match=r"holds no chunk-\*-trace\.csv"):
        read_clients(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("trace_csv", "0,1,1,Gamma,1\n", "chunk-0-trace.csv:1: has 5 fields, not 6"),
        ("trace_csv", "0,1,1,Gamma,1,1\n", "chunk-2-trace.csv: has other windows than chunk-0"),
        ("dataset_json", "{", "chunk-0-dataset.json: Input data was truncated"),
        ("dataset_json", "{}", "chunk-0-dataset.json: has no lengths"),
        ("dataset_json", '{"0": {"input_tokens": "{1: 1}"}}', "span 0 has no output_tokens"),
        (
            "dataset_json",
            span("{1: -1}"),
            "span 0: probabilities must be positive",
        ),
        (
            "dataset_json",
            span("[1]"),
            "span 0: is not a dict",
        ),
        (
            "dataset_json",
            span("{-4: 1}"),
            "span 0: has a value that is not a number of tokens",
        ),
    ],
)
def test_errors_of_a_folder_name_the_file(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(TraceError, match=re.escape(message)):
        read_clients(folder(tmp_path, **{name: text}))


def test_a_folder_lacks_a_dataset(tmp_path: Path) -> None:
    (folder(tmp_path) / "chunk-0-dataset.json").unlink()
    with pytest.raises(TraceError, match=r"chunk-0-dataset\.json: No such file"):
        read_clients(tmp_path)


def test_the_shipped_clients() -> None:
    mixture = deepseek_r1()
    assert len(mixture.clients) == 28
    assert mixture.rate == pytest.approx(39.43, abs=0.01)
    assert (mixture.start_s, mixture.end_s) == (79_200.0, 80_400.0)


def test_tables_are_made_from_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunks = folder(tmp_path)
    day = "".join(f"{start},0,0,,0,0\n" for start in range(0, 79_200, 600))
    busy = "79200,0.5,1.0,Gamma,0.25,2.0\n79800,0.25,2.0,Weibull,0.7,3.1\n80400,9,1,Gamma,1,1\n"
    (chunks / "chunk-0-trace.csv").write_text(day + busy)
    (chunks / "chunk-2-trace.csv").unlink()
    out = tmp_path / "out"
    out.mkdir()
    assert main([str(chunks), "--out", str(out)]) == 0
    assert (out / "servegen_r1_clients.csv").read_text() == (
        "client,window_start_s,rate_rps,family,shape\n"
        "0,79200,0.5,Gamma,0.25\n0,79800,0.25,Weibull,0.7\n"
    )
    lines = (out / "servegen_r1_client_lengths.csv").read_text().splitlines()
    assert lines[:2] == ["client,q,prompt_tokens,output_tokens,reason_ratio", "0,0,9,10,0.2"]
    assert len(lines) == 18
    assert main([str(tmp_path / "absent")]) == 2
    assert "absent: No such file" in capsys.readouterr().err


def test_laws_of_a_folder_are_those_that_were_published(tmp_path: Path) -> None:
    lengths = read_clients(folder(tmp_path)).clients[0].windows[1].lengths
    assert lengths == SharedLengths(
        Probabilities.of({7: 1.0}), Probabilities.of({10: 0.5, 30: 0.5}), Probabilities.of({0.5: 1})
    )
