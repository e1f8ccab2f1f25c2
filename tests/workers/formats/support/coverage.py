"""Which of vLLM's reasoning parsers the golden tests cover.

    python -m tests.workers.formats.support.coverage

Prints the table of ``docs/explanation/formats.md``; a test compares them.
"""

from __future__ import annotations

import argparse

from tests.workers.formats.support.families import BY_TEXT, FAMILIES, NOT_COVERED, OWN_TESTS


def table() -> str:
    """The table, in Markdown."""
    rows: dict[str, tuple[str, str]] = {}
    for family in FAMILIES:
        ends = ["end"]
        ends += ["call in the thoughts"] if family.implicit else []
        ends += ["thoughts again"] if family.reopens else []
        rows[family.reasoning] = ("tokens", ", ".join(ends))
    rows |= OWN_TESTS
    for family, _ in BY_TEXT:
        rows[family.reasoning] = ("text, a step later", "end")
    covered = len(rows)
    rows |= {name: ("", f"not covered: {why}") for name, why in NOT_COVERED.items()}
    lines = [f"{covered} of vLLM's {len(rows)} reasoning parsers are covered:", ""]
    lines += ["| parser | phases by | tested |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {by} | {what} |" for name, (by, what) in sorted(rows.items())]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description="What the golden tests of formats cover.").parse_args()
    print(table())


if __name__ == "__main__":
    main()
