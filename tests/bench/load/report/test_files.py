from __future__ import annotations

import csv
import json
from pathlib import Path

import msgspec
import pytest

from bench.load.options import OptionError
from bench.load.report.files import prepare_outputs, write_outputs
from tests.bench.support.flags import options
from tests.bench.support.run_results import a_result


def test_every_place_is_looked_at_and_left_as_it_was(tmp_path: Path) -> None:
    kept = tmp_path / "kept.csv"
    kept.write_text("old")
    flags = ("--csv", str(kept), "--html", str(tmp_path / "new" / "report.html"))
    prepare_outputs(options(*flags, "--save-result", "--result-dir", str(tmp_path / "results")))
    assert kept.read_text() == "old"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["kept.csv", "new", "results"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--csv /dev/null/x.csv", "--csv /dev/null/x.csv: "),
        ("--html {tmp}", "--html {tmp}: Is a directory"),
        ("--save-result --result-dir /dev/null/x", "--result-dir /dev/null/x/"),
        ("--save-result --result-dir {tmp} --result-filename .", "--result-filename {tmp}: "),
    ],
)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, flags: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        prepare_outputs(options(*flags.format(tmp=tmp_path).split()))
    assert str(caught.value).startswith(message.format(tmp=tmp_path))


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    result = a_result() | {"curves": []}
    names = ("r.json", "r.csv", "r.html")
    paths = [tmp_path / name for name in names]
    chosen = options(
        "--save-result", "--result-dir", str(tmp_path), "--result-filename", "r.json",
        "--csv", str(paths[1]), "--html", str(paths[2]),
    )  # fmt: skip
    assert write_outputs(chosen, result) == paths
    # What is read is what JSON makes of it: tuples have become lists.
    assert json.loads(paths[0].read_text()) == json.loads(msgspec.json.encode(result))
    rows = list(csv.DictReader(paths[1].open(newline="")))
    assert len(rows) == len(result["requests"])
    assert rows[0]["ttft_s"] == str(result["requests"][0]["ttft_s"])
    assert rows[0]["server_raw_tpot_s"] == "0.01"
    assert rows[3]["outcome"] == "interrupted"
    assert rows[3]["ttft_s"] == ""
    assert "</html>" in paths[2].read_text()


def test_a_table_without_requests_has_its_head(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    write_outputs(options("--csv", str(path)), a_result() | {"requests": []})
    (head,) = csv.reader(path.open(newline=""))
    assert {"index", "turn", "ttft_s", "qoe", "server_paced_ttfat_s"} <= set(head)


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    result = a_result()
    result["requests"][2]["error"] = '=HYPERLINK("http://x")'
    path = tmp_path / "r.csv"
    write_outputs(options("--csv", str(path)), result)
    assert list(csv.DictReader(path.open(newline="")))[2]["error"].startswith("'=")
