"""Write the state diagrams of ``docs/explanation/lifecycle.md`` from the tables in the code.

``python scripts/lifecycle_diagrams.py`` rewrites the generated parts of the page, between its
markers. With ``--check`` it changes nothing, and exits with 1 if the page is out of date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gateway.response import lifecycle  # noqa: E402
from gateway.routing import route  # noqa: E402

PAGE = ROOT / "docs" / "explanation" / "lifecycle.md"

_State = TypeVar("_State", bound=Enum)
_Event = TypeVar("_Event", bound=Enum)


def diagram(table: Mapping[tuple[_State, _Event], _State], first: _State) -> str:
    """A Mermaid diagram of a table, and a sentence for each event that every state allows."""
    order = list(type(first))
    sources = {before for before, _ in table}
    everywhere: dict[_Event, _State] = {}  # events that lead from all of them to one state
    for event in dict.fromkeys(event for _, event in table):
        targets = {table.get((before, event)) for before in sources}
        if len(targets) == 1 and (target := targets.pop()) is not None:
            everywhere[event] = target
    labels: dict[tuple[_State, _State], list[str]] = {}
    rows = sorted(table.items(), key=lambda row: (order.index(row[0][0]), order.index(row[1])))
    for (before, event), after in rows:
        if event not in everywhere:
            labels.setdefault((before, after), []).append(event.name)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first.name}"]
    for (before, after), events in labels.items():
        lines.append(f"    {before.name} --> {after.name}: {', '.join(events)}")
    drawn = {state for pair in labels for state in pair}
    lines += [f"    {one.name} --> [*]" for one in order if one in drawn - sources]
    lines += ["```", ""]
    for event, after in everywhere.items():
        lines.append(f"- `{event.name}` leads from every unfinished state to `{after.name}`.")
    return "\n".join(lines)


def rendered(page: str) -> str:
    """The page with its generated parts as the code has them.

    :raises ValueError: a marker is missing.
    """
    diagrams = {
        "states": diagram(lifecycle.TRANSITIONS, lifecycle.State.QUEUED),
        "stages": diagram(route.TRANSITIONS, route.Stage.WAITING),
    }
    for name, text in diagrams.items():
        begin, end = f"<!-- {name}: generated -->\n", f"<!-- {name}: end -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{PAGE.name} has no markers for {name!r}")
        page = f"{before}{begin}\n{text}\n\n{end}{after}"
    return page


def main() -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    only_check = parser.parse_args().check
    page = PAGE.read_text()
    new = rendered(page)
    if only_check:
        if new != page:
            print(f"{PAGE.name} is out of date: run python scripts/lifecycle_diagrams.py")
        return int(new != page)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
