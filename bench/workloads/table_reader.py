"""Rows of CSV and JSON-lines files, read one at a time; errors name file, line and column.

Decides how rows, numbers and counts of tokens are parsed, so that all file formats agree. It must
not know the meaning of columns. Files may be gzipped, begin with a byte-order mark, and end lines
with CRLF; empty lines are skipped.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.reporting.errors import BenchmarkError

# More than any model's context: a larger number means a broken line.
MOST_TOKENS = 10_000_000

_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class TraceError(BenchmarkError):
    """A file cannot be read; the message names it, and line and column if they are known.

    :ivar path: the file.
    :ivar line: from 1; None if the error concerns the whole file.
    :ivar column: its name in the file; None if the error concerns the whole line.
    """

    def __init__(
        self, problem: str, path: Path, line: int | None = None, column: str | None = None
    ) -> None:
        where = str(path) if line is None else f"{path}:{line}"
        super().__init__(f"{where}: {problem if column is None else f'{column}: {problem}'}")
        self.path = path
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file, its values by column: text from CSV, numbers and text from JSON."""

    path: Path
    line: int
    values: Mapping[str, Any]

    def error(self, problem: str, column: str | None = None) -> TraceError:
        """An error in this row, for the caller to raise."""
        return TraceError(problem, self.path, self.line, column)

    def text(self, column: str) -> str:
        """The text of a column; :raises TraceError: if it is missing."""
        value = self.values.get(column)
        if value is None or (isinstance(value, str) and not value.strip()):
            raise self.error("is missing", column)
        return str(value).strip()

    def number(self, column: str, least: float = 0.0, most: float = math.inf) -> float:
        """A finite number within the bounds.

        :raises TraceError: for any other text.
        """
        text = self.text(column)
        try:
            # Python would accept 1_000 as a number.
            value = math.nan if "_" in text else float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error(f"{text!r} is not a finite number", column)
        if not least <= value <= most:
            bound = f"below {least:.12g}" if value < least else f"above {most:.12g}"
            raise self.error(f"{text} is {bound}", column)
        return value

    def tokens(self, column: str) -> int:
        """A whole number of tokens from 0 to `MOST_TOKENS`.

        :raises TraceError: for any other text.
        """
        value = self.number(column, 0, MOST_TOKENS)
        if not value.is_integer():
            raise self.error(f"{self.text(column)} is not a whole number", column)
        return int(value)


def rows(path: Path, header: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a file, in order: JSON lines if it begins with ``{``, CSV otherwise.

    :param header: column names, for a CSV file without a header.
    :raises TraceError: while iterating, if the file cannot be read, is empty, or is malformed.
    """
    lines = _lines(path)
    first = next(((number, text) for number, text in lines if text.strip()), None)
    if first is None:
        raise TraceError("is empty", path)
    if first[1].lstrip().startswith("{"):
        yield from _json_rows(path, first, lines)
    else:
        yield from _csv_rows(path, first, lines, header)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers from 1, decoded one by one, so that errors have a line number."""
    number = 0
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == _GZIP_MAGIC
        with gzip.open(path) if zipped else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                line = raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw
                yield number, line.decode()
    except UnicodeDecodeError as error:
        raise TraceError("not UTF-8 text", path, number) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(f"the gzip file is broken: {error}", path) from error
    except OSError as error:
        raise TraceError(error.strerror or str(error), path) from error


def _json_rows(
    path: Path, first: tuple[int, str], rest: Iterator[tuple[int, str]]
) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    number, text = first
    while True:
        if text.strip():
            try:
                yield Row(path, number, decoder.decode(text))
            except msgspec.DecodeError as error:
                raise TraceError(str(error), path, number) from error
        number, text = next(rest, (0, ""))
        if number == 0:
            return


def _csv_rows(
    path: Path,
    first: tuple[int, str],
    rest: Iterator[tuple[int, str]],
    header: Sequence[str] | None,
) -> Iterator[Row]:
    line = first[0]  # the last one that was read, at which a row ends

    def texts() -> Iterator[str]:
        nonlocal line
        yield first[1]
        for number, text in rest:
            line = number
            yield text

    names = None if header is None else list(header)
    try:
        for fields in csv.reader(texts(), strict=True):
            if not any(field.strip() for field in fields):
                continue
            if names is None:
                names = _header(fields, path, line)
            elif len(fields) != len(names):
                raise TraceError(f"has {len(fields)} fields, not {len(names)}", path, line)
            else:
                yield Row(path, line, dict(zip(names, fields, strict=True)))
    except csv.Error as error:
        raise TraceError(f"CSV is malformed: {error}", path, line) from error


def _header(fields: Sequence[str], path: Path, line: int) -> list[str]:
    names = [field.strip() for field in fields]
    for name in names:
        if names.count(name) > 1:
            raise TraceError("is there twice", path, line, name or "an unnamed column")
    return names
