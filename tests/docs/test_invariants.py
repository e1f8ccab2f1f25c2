"""Promises on the page of invariants name existing tests, and bounds the numbers of the code."""

from __future__ import annotations

import ast
import re

import pytest

from gateway import store
from gateway.routing import worker_link
from gateway.routing.route import RouteTimeouts
from tests.docs.support.pages import text_of, tracked, tree_of
from workers.requests import gateways

PAGE = "docs/explanation/invariants.md"
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def functions_of(file: str) -> set[str]:
    return {
        node.name
        for node in tree_of(file).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_test_that_the_page_names_exists() -> None:
    named = _TEST.findall(text_of(PAGE))
    assert len(named) > 40
    assert text_of(PAGE).count("::") == len(named), "one of them is not written as PATH::NAME"
    known = set(tracked())
    missing = [
        f"{file}::{name}"
        for file, name in named
        if file not in known or name not in functions_of(file)
    ]
    assert not missing, "\n".join(missing)


def promises() -> list[tuple[str, str]]:
    """The sections that promise something: heading and text."""
    promised = text_of(PAGE).partition("\n## What is not promised")[0]
    parts = re.split(r"\n#{2,3} ", promised)[1:]
    sections = [(title, text) for title, _, text in (part.partition("\n") for part in parts)]
    return [(title, text) for title, text in sections if text.strip()]


@pytest.mark.parametrize(("title", "text"), promises())
def test_every_promise_names_a_test(title: str, text: str) -> None:
    if title == "What is bounded":  # an introduction
        return
    assert _TEST.search(text), f"{PAGE}: nothing holds '{title}'"
    for line in re.split(r"\n(?=- \*\*)", text)[1:]:
        assert _TEST.search(line), f"{PAGE}: nothing holds {line!r}"


def test_the_constants_of_the_page_are_those_of_the_code() -> None:
    page = " ".join(text_of(PAGE).split())
    assert f"one worker**: with {worker_link._FULL_BYTES >> 20} MiB waiting" in page
    assert f"With {worker_link._MAX_UNSENT_BYTES >> 20} MiB waiting the link ends" in page
    assert f"the store**: {store.MAX_QUEUED_BYTES >> 20} MiB" in page
    assert f"confirm** ends the response after {RouteTimeouts().cancel_timeout_s:g} s" in page
    assert f"more than {gateways._HIGH_WATER} tokens waiting" in page
