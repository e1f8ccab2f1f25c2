"""The page of the architecture names the modules that have the two tables of a request."""

from __future__ import annotations

from gateway.response.lifecycle import TRANSITIONS
from gateway.routing.route import Stage
from tests.docs.support.pages import text_of

PAGE = "docs/explanation/architecture.md"


def section(title: str) -> str:
    """The text of the page from this heading to the next."""
    return text_of(PAGE).partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_two_tables_of_a_request_are_where_the_page_says() -> None:
    text = section("The life of a request")
    assert "`gateway/response/lifecycle.py`" in text
    assert "`gateway/routing/route.py`" in text
    assert TRANSITIONS
    assert Stage.__module__ == "gateway.routing.route"
