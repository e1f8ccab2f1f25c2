"""The shell blocks of the pages that tell people what to type, and how each one is marked.

A block is fenced as ``sh``. An HTML comment above it may mark it:

    <!-- not run: REASON -->         needs hardware or programs, or takes too long
    <!-- in the background -->       a server: stopped at the end of the page
    <!-- in the background: until URL answers -->
                                     the same, where the server does not print its address
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]

_MARK = re.compile(
    r"<!-- (?:not run: (?P<reason>.+)|in the background(?:: until (?P<url>\S+) answers)?) -->"
)


class MarkError(Exception):
    """A comment above a shell block that means nothing."""


@dataclass(frozen=True, slots=True)
class Block:
    """One shell block."""

    page: str
    line: int
    text: str
    not_run: str = ""  # the reason; empty: it is run
    background: bool = False
    url: str = ""  # a server of this address is up when it answers

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def guide_pages() -> list[str]:
    """The pages whose commands are run, in the order in which a newcomer reads them."""
    guides = sorted((ROOT / "docs" / "howto").glob("*.md"))
    first = ["README.md", "docs/tutorial.md", "CONTRIBUTING.md"]
    return [*first, *(str(path.relative_to(ROOT)) for path in guides)]


@dataclass(frozen=True, slots=True)
class Fence:
    """A block of code on a page, of any language."""

    line: int  # its first one
    language: str
    text: str
    comment: str  # the HTML comment right above it; empty: there is none


def fences(text: str) -> Iterator[Fence]:
    """The blocks of code of a page, indented ones included."""
    comment = ""
    for token in MarkdownIt("commonmark").parse(text):
        if token.type in ("fence", "code_block"):
            line = token.map[0] + 1 + (token.type == "fence") if token.map else 0
            yield Fence(line, token.info, token.content, comment.strip())
        comment = token.content if token.type == "html_block" else ""


def blocks_of(page: str, text: str) -> list[Block]:
    """The shell blocks of a page. Raises MarkError for a comment above one that is no mark."""
    blocks = []
    for fence in fences(text):
        if fence.language != "sh":
            continue
        mark = _MARK.fullmatch(fence.comment)
        if fence.comment and mark is None:
            raise MarkError(f"{page}:{fence.line}: {fence.comment}")
        reason, url = (mark["reason"], mark["url"]) if mark else (None, None)
        background = mark is not None and reason is None
        blocks.append(Block(page, fence.line, fence.text, reason or "", background, url or ""))
    return blocks


def all_blocks() -> list[Block]:
    """The shell blocks of all pages that are run."""
    return [
        block
        for page in guide_pages()
        for block in blocks_of(page, (ROOT / page).read_text(encoding="utf-8"))
    ]
