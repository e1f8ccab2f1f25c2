from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.load.command import main
from bench.load.report.compare import (
    ComparisonError,
    comparison_page,
    read_results,
    rows,
    run,
    warnings,
)
from tests.bench.load.report.test_html import EVIL, Page
from tests.bench.support.run_results import a_result


def saved(path: Path, **fields: Any) -> Path:
    path.write_text(json.dumps(a_result(**fields)))
    return path


def test_figures_are_multiples_of_the_first(tmp_path: Path) -> None:
    first = saved(tmp_path / "a.json", throughput_tok_s=50.0, failed=0)
    second = saved(tmp_path / "b.json", throughput_tok_s=75.0, failed=2)
    third = saved(tmp_path / "c.json", throughput_tok_s=None, failed=0)
    found = {row.label: row for row in rows(read_results([first, second, third]))}
    assert found["tokens/s"].values == (50.0, 75.0, None)
    assert found["tokens/s"].ratios == (1.0, 1.5, None)
    assert found["tokens/s"].cells() == ["50.0", "75.0", "x 1.50", "-", ""]
    assert found["failed"].ratios == (None, None, None)  # nothing is a multiple of zero
    assert [round(value or 0.0, 6) for value in found["TTFT (s) mean"].values] == [0.8] * 3
    assert "goodput, requests/s" not in found  # no bound was given


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    a, b, c = (saved(tmp_path / name) for name in ("r.json", "x/r.json", "s.json"))
    assert list(read_results([a, b, c, c])) == [str(a), str(b), f"{c} (1)", f"{c} (2)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "r.json: not JSON: "),
        ("[1]", "r.json: not a result of pascal load: not an object"),
        ('{"a": 1}', "r.json: not a result of pascal load: it has no 'config'"),
    ],
)
def test_what_is_no_result_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ComparisonError) as caught:
        read_results([saved(tmp_path / "good.json"), path])
    assert message in str(caught.value)


def test_a_figure_that_is_none_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "r.json", completed="many")
    with pytest.raises(ComparisonError, match=r"r.json: .* completed is 'many'"):
        read_results([path])


def test_runs_that_differ_are_warned_of(tmp_path: Path) -> None:
    paths = [saved(tmp_path / "a.json"), saved(tmp_path / "b.json", model="other")]
    document = json.loads(paths[1].read_text())
    document["config"] |= {"request_rate": 9.0, "result_dir": "elsewhere"}
    document["generator"]["kept_up"] = True
    paths[1].write_text(json.dumps(document))
    assert warnings(read_results(paths)) == [
        "warning: runs differ in request_rate: 2.0, 9.0",
        "warning: runs differ in model: tiny, other",
        "warning: in a the generator could not keep up",
    ]


def test_the_page_is_escaped_and_drawn(tmp_path: Path) -> None:
    results = {EVIL: a_result(), "b": a_result()}
    page = Page(comparison_page(results))
    assert "script" not in page.tags
    assert page.tags.count("svg") == 3
    assert EVIL in page.text  # in the legends too, where it must not be read as a formula
    assert len(page.ids) == len(set(page.ids))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = {"requests": [], "throughput_tok_s": 6.75}  # nothing to draw
    a, b = saved(tmp_path / "a.json", requests=[]), saved(tmp_path / "b.json", **fields)
    html = tmp_path / "c.html"
    assert main(["compare", str(a), str(b), "--html", str(html)]) == 0
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines() if "tokens/s" in line] == [
        ["tokens/s", "3.4", "6.8", "x", "2.00"]
    ]
    assert "</html>" in html.read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["compare"], "compare needs at least one RESULT.json"),
        (["compare", "absent.json"], "absent.json: No such file or directory"),
        (["compare", "absent.json", "--seed", "3"], "compare takes no flag but --html"),
        (["foo"], "unrecognized arguments: foo"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_result_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "a.json")
    assert run([path], path) == 2
    assert "it is one of the results" in capsys.readouterr().err
    assert read_results([path])
