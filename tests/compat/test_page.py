"""The page of results: a run of some clients keeps what it says of the others."""

from __future__ import annotations

from pathlib import Path

from setup_env import ROOT

from tests.compat import page
from tests.compat.client import Client
from tests.compat.runner import Case, Result, counts
from tests.compat.table import all_clients

A = Client("A", "pypi", ("a==1",), "a.py")
B = Client("B, as a proxy", "pypi", ("b==1",), "b.py")
GOOD = (Case("ok", "first", "", ""), Case("ok", "second", "x/y#1", ""))
ORDER = ["A", "B, as a proxy"]


def text_of(*results: Result, before: str = "", date: str = "2026-01-01") -> str:
    return page.merged(before, results, ORDER, date, "1.0")


def test_a_row_and_the_cases_of_each_client() -> None:
    bad = Result(A, "FAIL", "a 1", (*GOOD, Case("FAIL", "third", "", "no | call")), "status 1")
    text = text_of(Result(B, "ok", "b 1", GOOD), bad)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:4] == [
        r"| A | a 1 | 2 ok, 1 failed | **fails**: status 1 | 2026-01-01 | 1.0 |",
        "| B, as a proxy | b 1 | 2 ok | works | 2026-01-01 | 1.0 |",
    ]
    assert text.index("## A\n") < text.index("## B, as a proxy\n")
    assert r"| third |  | **fails**: no \| call |" in text
    assert "| second | x/y#1 | ok |" in text


def test_the_rows_of_the_others_stay_to_the_letter() -> None:
    first = text_of(Result(A, "ok", "a 1", GOOD), Result(B, "ok", "b 1", GOOD))
    second = text_of(Result(A, "ok", "a 2", GOOD[:1]), before=first, date="2026-02-02")
    assert second == first.replace(
        "| A | a 1 | 2 ok | works | 2026-01-01 |", "| A | a 2 | 1 ok | works | 2026-02-02 |"
    ).replace("| second | x/y#1 | ok |\n\n## B", "\n## B").replace("| ok |\n\n\n", "| ok |\n\n")
    assert text_of(before=second) == second


def test_what_could_not_be_tried_hides_no_result() -> None:
    first = text_of(Result(A, "ok", "a 1", GOOD))
    absent = Result(A, "absent", reason="node is missing")
    assert text_of(absent, before=first, date="2026-02-02") == first
    assert "| A | - | no case | not tried: node is missing |" in text_of(absent)


def test_a_client_that_is_no_longer_in_the_table_leaves_the_page() -> None:
    first = text_of(Result(A, "ok", "a 1", GOOD), Result(B, "ok", "b 1", GOOD))
    after = page.merged(first, [], ["A"], "2026-02-02", "1.0")
    assert "B, as a proxy" not in after
    assert "## A\n" in after


def test_nothing_is_markup_a_host_or_a_path_of_this_machine() -> None:
    text = f"a_b *c* {ROOT}/x.py {ROOT} https://registry.example/x http://127.0.0.1:1/v1"
    assert page.cell(text) == r"a\_b \*c\* x.py . (an address) http://127.0.0.1:1/v1"


def test_cases_are_counted() -> None:
    assert counts(()) == "no case"
    assert counts((*GOOD, Case("skip", "x", "", "no"))) == "2 ok, 1 skipped"


def test_the_page_of_the_project_knows_its_clients() -> None:
    """Every row belongs to a client of the table, and every client has a row."""
    rows, sections = page.parts_of(page.PAGE.read_text(encoding="utf-8"))
    names = [client.name for client in all_clients()]
    assert set(rows) == set(names)
    assert set(sections) <= set(rows)
    assert Path(page.PAGE).name == "compatibility.md"
