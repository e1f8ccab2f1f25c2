"""``python -m tests.acceptance``, or `make acceptance`: checks that need hours or other programs.

Prints one line for each part, and ends with status 1 if a part failed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from tests.acceptance.parts import Part, all_parts
from tests.acceptance.runner import ROOT, Runner


def parser_of(parts: Sequence[Part]) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.acceptance",
        description="Run the checks that are too long for `make test`, or need other programs.",
    )
    names = [part.name for part in parts]
    parser.add_argument("--list", action="store_true", help="list the parts, and run none")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=names, help=f"of: {', '.join(names)}"
    )
    parser.add_argument(
        "--install",
        action="store_true",
        help="install the Debian packages that are missing (as root)",
    )
    return parser


def listing(parts: Sequence[Part]) -> str:
    """One line for each part, and one for each program that it lacks here."""
    lines = []
    for part in parts:
        lacks = [program.missing for program in part.programs if not program.is_there()]
        lacks += [part.absent] if part.absent else []
        lines.append(f"{part.name:12} {part.minutes:3.0f} min  {part.shows}")
        lines += [f"{'':21} {text}" for text in lacks]
    return "\n".join(lines)


def interrupt(_number: int, _frame: object) -> NoReturn:
    """SIGTERM ends the running part as Ctrl-C does."""
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for; the exit status."""
    signal.signal(signal.SIGTERM, interrupt)
    parts = all_parts()
    args = parser_of(parts).parse_args(argv)
    if args.only:
        parts = [part for part in parts if part.name in args.only]
    if args.list:
        print(listing(parts))
        return 0
    return Runner(ROOT / ".acceptance", install=args.install).run(parts)


if __name__ == "__main__":
    sys.exit(main())
