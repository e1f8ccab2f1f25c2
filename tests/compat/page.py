"""The page of results, `docs/results/compatibility.md`: a row and a list of cases for each client.

A run of some clients replaces what the page says of these and keeps the rest as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from setup_env import ROOT

from tests.compat.runner import Case, Result, counts

PAGE: Final = ROOT / "docs" / "results" / "compatibility.md"

_HEAD: Final = """\
# Compatibility

Real clients, as PyPI and npm have them, against a real gateway: what was tried, and whether it
works. [Connect clients](../howto/connect-clients.md) has their settings.

*Run*: `make compat`, which writes this page. A run of some clients leaves the rows of the others,
so each row has its own date.

*Where*: CPU engines with the [embedded model](../../models/README.md). Prompts that are too long
for it go to [emulated instances](../explanation/emulation.md), whose text is scripted.

"""
_COLUMNS: Final = (
    "| client | versions | cases | result | date | pascal-serve |\n"
    "| --- | --- | --- | --- | --- | --- |\n"
)
_CASES: Final = "| case | fails elsewhere | result |\n| --- | --- | --- |\n"
_ADDRESS: Final = re.compile(r"https?://(?!127\.0\.0\.1|localhost)\S+")


def write(results: Sequence[Result], order: Sequence[str], date: str, ours: str) -> None:
    """Put these results on the page.

    :param order: names of all clients; what the page says of others is dropped.
    :param ours: the version of pascal-serve.
    """
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    PAGE.write_text(merged(before, results, order, date, ours), encoding="utf-8")


def merged(
    before: str, results: Sequence[Result], order: Sequence[str], date: str, ours: str
) -> str:
    """The new text of the page."""
    rows, sections = parts_of(before)
    for result in results:
        name = result.client.name
        if result.outcome == "absent" and name in rows:
            continue  # nothing new is known
        rows[name] = row(result, date, ours)
        sections[name] = section(result)
    shown = [name for name in order if name in rows]
    table = _COLUMNS + "\n".join(rows[name] for name in shown)
    blocks = [f"## {name}\n\n{sections[name]}" for name in shown if sections.get(name)]
    return _HEAD + "\n\n".join([table, *blocks]) + "\n"


def parts_of(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """The rows and the sections of the page by the client's name."""
    head, *blocks = re.split(r"^## ", text, flags=re.MULTILINE)
    lines = [line for line in head.splitlines() if line.startswith("| ")]
    rows = {line.split("|")[1].strip(): line for line in lines[2:]}
    sections = {}
    for block in blocks:
        name, _, body = block.partition("\n")
        sections[name.strip()] = body.strip()
    return rows, sections


def row(result: Result, date: str, ours: str) -> str:
    """One line of the table of clients."""
    words = {"ok": "works", "FAIL": "**fails**", "absent": "not tried"}
    verdict = words[result.outcome] + (f": {cell(result.reason)}" if result.reason else "")
    versions = cell(result.versions) or "-"
    name = cell(result.client.name)
    return f"| {name} | {versions} | {counts(result.cases)} | {verdict} | {date} | {ours} |"


def section(result: Result) -> str:
    """The table of what was tried."""
    if not result.cases:
        return ""
    return _CASES + "\n".join(map(_case, result.cases))


def _case(case: Case) -> str:
    words = {"ok": "ok", "FAIL": "**fails**", "skip": "not tried"}
    result = words[case.outcome] + (f": {cell(case.reason)}" if case.reason else "")
    return f"| {cell(case.name)} | {cell(case.elsewhere)} | {result} |"


def cell(text: str) -> str:
    """The text as a cell of a table: nothing in it is markup, a path of this machine or a host."""
    plain = _ADDRESS.sub("(an address)", text.replace(f"{ROOT}/", "").replace(str(ROOT), "."))
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", plain)
