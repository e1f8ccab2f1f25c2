"""The shell blocks of the pages that tell people what to type, and how each one is marked.

A block is fenced as ``sh``. An HTML comment above it may mark it:

    <!-- not run: REASON -->         needs hardware or programs, or takes too long
    <!-- in the background -->       a server: stopped at the end of the page
    <!-- in the background: until URL answers -->
                                     the same, where the server does not print its address
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.docs.pages import _MARKDOWN, ROOT

_MARK = re.compile(
    r"<!-- (?:not run: (?P<reason>.+)|in the background(?:: until (?P<url>\S+) answers)?) -->\s*"
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


def blocks_of(page: str, text: str) -> list[Block]:
    """The shell blocks of a page. Raises MarkError for a comment above one that is no mark."""
    tokens = _MARKDOWN.parse(text)
    blocks = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type != "fence" or token.info != "sh":
            continue
        line = token.map[0] + 2 if token.map else 0
        comment = before.content if before is not None and before.type == "html_block" else ""
        mark = _MARK.fullmatch(comment)
        if comment and mark is None:
            raise MarkError(f"{page}:{line}: {comment.strip()}")
        reason, url = (mark["reason"], mark["url"]) if mark else (None, None)
        background = mark is not None and reason is None
        blocks.append(Block(page, line, token.content, reason or "", background, url or ""))
    return blocks


def all_blocks() -> list[Block]:
    """The shell blocks of all pages that are run."""
    return [
        block
        for page in guide_pages()
        for block in blocks_of(page, (ROOT / page).read_text(encoding="utf-8"))
    ]
