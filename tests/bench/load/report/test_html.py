from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser

import pytest

from bench.load.measure import run_result
from bench.load.report.html import report_page
from bench.load.report.plots import by_turn, phases
from tests.bench.support.results import record_of, result_of
from tests.bench.support.run_results import a_result, of_turns

EVIL = "<script>alert(1)</script> $x^$ \"'&"
TURNS = "A later turn carries the conversation so far."
VOID = {"meta", "path", "use"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails if tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href", "action"):
                self.links.append(value or "")
            assert not name.startswith("on")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@cache
def report() -> str:
    """Drawing takes a second."""
    return report_page(a_result("--goodput", "ttft:700"))


def test_the_report_stands_by_itself() -> None:
    text = report()
    page = Page(text)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text


def test_every_reference_within_the_drawings_has_its_target() -> None:
    text = report()
    page = Page(text)
    wanted = {link[1:] for link in page.links} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert wanted
    assert wanted <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_the_plots_are_there() -> None:
    page = Page(report())
    assert page.tags.count("svg") == 6
    for title in ("TTFT by length", "Distributions", "Quality of experience", "Gaps between tokens",
                  "A reader's buffer", "Phases of requests"):  # fmt: skip
        assert title in page.text
    assert TURNS not in page.text
    for label in ("reasoning tokens", "released", "reading curve", "SLO 0.95", "pace 0.1 s"):
        assert label in page.text


def test_conversations_are_drawn_by_turn() -> None:
    svg = by_turn(of_turns())
    assert svg is not None
    assert Page(svg).text.count("turn") == 2
    assert by_turn(a_result()) is None


def test_nothing_from_outside_becomes_markup() -> None:
    errors = {EVIL: 3}
    result = a_result(model=EVIL, errors=errors) | {"requests": [], "curves": []}
    result["config"]["base_url"] = EVIL
    page = Page(report_page(result))
    assert "script" not in page.tags
    assert page.text.count("<script>alert(1)</script>") >= 4


def test_drawings_take_the_colour_of_the_page() -> None:
    text = report()
    assert "currentColor" in text
    assert "#010203" not in text
    assert "#000000" not in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_a_run_without_any_request() -> None:
    page = Page(report_page(a_result() | run_result([]) | {"curves": []}))
    assert "svg" not in page.tags
    assert page.text.count("Nothing was measured.") == 6


@pytest.mark.parametrize(("lag_s", "said"), [(0.001, "kept up"), (0.5, "cannot keep up")])
def test_the_generator_says_whether_it_kept_up(lag_s: float, said: str) -> None:
    punctual = result_of(record_of(), turned_s=9.5)
    run = run_result([punctual], loop_lag_s=[lag_s], cpu_share=0.5)
    assert run["generator"] == {"kept_up": lag_s < 0.01, "cpu_share": 0.5}
    page = Page(report_page(a_result() | run | {"requests": [], "curves": []}))
    assert said in page.text
    assert "50% of a core" in page.text


def test_the_phases_of_a_request_follow_each_other() -> None:
    run = run_result([result_of(record_of(), 0)])
    request = run["requests"][0] | {"first_token_s": 0.2}
    request["timing"]["raw"]["e2e_s"] = 0.8
    # Sent at 2.0: first thought 2.2, thinking over 2.5, answer 2.6, generated 2.8, end 3.
    named = [(name, (round(begin, 6), round(end, 6))) for name, _, begin, end in phases(request)]
    assert named == [
        ("held back", (1.75, 2.0)),
        ("prefill", (2.0, 2.2)),
        ("reasoning", (2.2, 2.5)),
        ("to the answer", (2.5, 2.6)),
        ("answering", (2.6, 2.8)),
        ("only being read", (2.8, 3.0)),
    ]


def test_a_failed_request_has_one_phase() -> None:
    run = run_result([result_of(record_of(status="failed"), 0)])
    assert [phase[0] for phase in phases(run["requests"][0])] == ["held back", "failed"]
