"""The pages can be read: short lines, short paragraphs. Tables, code and headings are exempt."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.docs.support.pages import Excerpt, pages, text_of

MOST_CHARACTERS = 100
MOST_WORDS = 80
_UNBREAKABLE = re.compile(r"\]\([^)]*\)|`[^` ]{50,}`")
_ITEM = re.compile(r"([-*]|\d+\.) ")


def prose(page: str, text: str) -> Iterator[Excerpt]:
    """Every line of prose of a page, and an empty one wherever a paragraph ends."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        fenced ^= bare.startswith("```")
        other = bare.startswith(("```", "|", "#", "<!--", "![")) or line.startswith("    ")
        if _ITEM.match(bare):
            yield Excerpt(page, number, "")
        yield Excerpt(page, number, "" if fenced or other else bare)
    yield Excerpt(page, 0, "")


def too_wide(lines: Iterator[Excerpt]) -> list[Excerpt]:
    """Lines of prose that are too long, without links and code that no space divides."""
    return [line for line in lines if len(_UNBREAKABLE.sub("", line.text)) > MOST_CHARACTERS]


def too_long(lines: Iterator[Excerpt]) -> list[Excerpt]:
    """Paragraphs, or items of lists, that have too many words."""
    long = []
    words: list[str] = []
    for line in lines:
        if line.text:
            words += line.text.split()
        elif words:
            if len(words) > MOST_WORDS:
                long.append(Excerpt(line.page, line.line, f"{len(words)} words end here"))
            words = []
    return long


def read() -> list[str]:
    """The pages that this is about."""
    return [page for page in pages() if page.startswith("docs/") or page == "README.md"]


@pytest.mark.parametrize("page", read())
def test_lines_and_paragraphs_are_short(page: str) -> None:
    text = text_of(page)
    wrong = too_wide(prose(page, text)) + too_long(prose(page, text))
    assert not wrong, "\n".join(map(str, wrong))


def test_the_checks_can_fail() -> None:
    assert too_wide(prose("page", "x" * 101))
    assert too_wide(prose("page", "- " + "x" * 101))
    assert not too_wide(prose("page", f"[link]({'x' * 101})\n\n    {'code' * 30}\n| {'x' * 101}"))
    assert too_long(prose("page", "word " * 81))
    assert too_long(prose("page", "\n".join(["a line of words"] * 21)))
    assert not too_long(prose("page", "\n".join(["- an item of words"] * 21)))
