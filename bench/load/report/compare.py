"""``pascal load compare``: results of several runs side by side, as multiples of the first.

Reads the JSON files that ``pascal load --save-result`` writes and refuses any other file. It warns
where the options of the runs differ, because results of different loads are not comparable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.load.options import OptionError
from bench.load.report.files import prepare_file
from bench.load.report.html import figure, number, page, table
from bench.reporting.console import OK, REFUSED, give_up

# Label, path within the result, factor, digits.
_METRICS: Final = (
    ("completed", ("completed",), 1.0, 0),
    ("failed", ("failed",), 1.0, 0),
    ("tokens/s", ("throughput_tok_s",), 1.0, 1),
    ("requests/s", ("throughput_req_s",), 1.0, 2),
    ("goodput, requests/s", ("goodput_req_s",), 1.0, 2),
    *(
        (f"{label} {column}", (key, column), factor, digits)
        for label, key, factor, digits, columns in (
            ("TTFT (s)", "ttft_s", 1.0, 3, ("mean", "p50", "p99")),
            ("TTFAT (ms)", "ttfat_s", 1000.0, 1, ("mean", "p99")),
            ("TPOT (ms)", "tpot_s", 1000.0, 2, ("mean", "p99")),
            ("TPOT of the engine (ms)", "tpot_raw_s", 1000.0, 2, ("mean",)),
            ("ITL (ms)", "itl_s", 1000.0, 2, ("p99",)),
            ("E2E (s)", "e2e_s", 1.0, 3, ("mean", "p99")),
            ("QoE", "qoe", 1.0, 4, ("mean", "min")),
        )
        for column in columns
    ),
    ("SLO violations", ("slo_violations",), 1.0, 0),
    ("tasks answered", ("agents", "answered"), 1.0, 0),
    ("task, end to end (s) mean", ("agents", "e2e_s", "mean"), 1.0, 3),
    ("task, end to end (s) p99", ("agents", "e2e_s", "p99"), 1.0, 3),
    ("task, to the answer (s) mean", ("agents", "to_answer_s", "mean"), 1.0, 3),
    ("task, in the model (s) mean", ("agents", "model_s", "mean"), 1.0, 3),
    ("turn, to the whole call (ms) mean", ("agents", "call_s", "mean"), 1000.0, 2),
    ("generator: late p99 (ms)", ("lateness_s", "p99"), 1000.0, 2),
)
# Options that do not change the measurement: the address of the server, and output files.
_NO_MATTER: Final = frozenset(
    ("base_url", "save_result", "result_dir", "result_filename", "csv", "html",
     "percentile_metrics", "metric_percentiles", "ready_check_timeout_s")
)  # fmt: skip


class ComparisonError(Exception):
    """A file is not a result of a load run; the message names it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of all runs."""

    label: str
    values: tuple[float | None, ...]
    ratios: tuple[float | None, ...]  # to the first run; None where there is none
    factor: float
    digits: int

    def cells(self) -> list[str]:
        """Values and ratios as text, run by run; the first has no ratio."""
        cells = []
        for index, (value, ratio) in enumerate(zip(self.values, self.ratios, strict=True)):
            cells.append(number(value, self.digits, self.factor))
            if index:
                cells.append("" if ratio is None else f"x {ratio:.2f}")
        return cells


def run(paths: Sequence[Path], html: Path | None) -> int:
    """Print the comparison, and write it to ``html`` if that is given.

    :return: the exit status: 0, or 2 for files that cannot be used.
    """
    try:
        if html is not None:
            if any(html.resolve() == path.resolve() for path in paths):
                raise OptionError(f"--html {html}: it is one of the results")
            prepare_file("--html", html)
        results = read_results(paths)
        if html is not None:
            html.write_text(comparison_page(results), encoding="utf-8")
    except (ComparisonError, OptionError, OSError) as error:
        return give_up(REFUSED, f"error: {error}", "pascal load compare")
    console = Console()
    console.print(_table(results))
    for line in warnings(results):
        console.out(line)
    if html is not None:
        console.out(f"result: {html}")
    return OK


def read_results(paths: Sequence[Path]) -> dict[str, Mapping[str, Any]]:
    """Results by a short unique name.

    :raises ComparisonError: naming the first file that is not a result.
    """
    return dict(zip(_names(paths), (_read(path) for path in paths), strict=True))


def _read(path: Path) -> Mapping[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ComparisonError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ComparisonError(f"{path}: not JSON: {error}") from error
    if not isinstance(result, dict):
        raise ComparisonError(f"{path}: not a result of pascal load: not an object")
    needed: dict[str, type] = {"config": dict, "model": str, "date": str, "requests": list}
    needed |= {where[0]: dict for _, where, _, _ in _METRICS if len(where) == 2}
    del needed["agents"]  # only some runs have it
    for name, kind in needed.items():
        if not isinstance(result.get(name), kind):
            raise ComparisonError(f"{path}: not a result of pascal load: it has no {name!r}")
    for where in (where for _, where, _, _ in _METRICS):
        value = _at(result, where)
        if value is not None and not isinstance(value, (int, float)):
            raise ComparisonError(
                f"{path}: not a result of pascal load: {'.'.join(where)} is {value!r}"
            )
    return result


def _names(paths: Sequence[Path]) -> list[str]:
    """File names, or whole paths if file names are equal; a file given twice gets a number."""
    stems = [path.stem for path in paths]
    names = [
        stem if stems.count(stem) == 1 else str(path)
        for path, stem in zip(paths, stems, strict=True)
    ]
    return [
        name if names.count(name) == 1 else f"{name} ({names[:i].count(name) + 1})"
        for i, name in enumerate(names)
    ]


def rows(results: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """All metrics that at least one run has."""
    table_rows = []
    for label, where, factor, digits in _METRICS:
        values = tuple(_at(result, where) for result in results.values())
        first = values[0]
        ratios = tuple(value / first if first and value is not None else None for value in values)
        if any(value is not None for value in values):
            table_rows.append(Row(label, values, ratios, factor, digits))
    return table_rows


def _at(result: Mapping[str, Any], where: Sequence[str]) -> float | None:
    value: Any = result
    for key in where:
        value = value.get(key) if isinstance(value, dict) else None
    return value  # type: ignore[no-any-return]  # checked when the file is read


def warnings(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Differences that make the runs hard to compare, one line each."""
    lines = []
    for key in sorted({key for result in results.values() for key in result["config"]}):
        values = [result["config"].get(key) for result in results.values()]
        if key not in _NO_MATTER and any(value != values[0] for value in values):
            shown = ", ".join(f"{value!r}" for value in values)
            lines.append(f"warning: runs differ in {key}: {shown}")
    models = [result["model"] for result in results.values()]
    if len(set(models)) > 1:
        lines.append(f"warning: runs differ in model: {', '.join(models)}")
    lines.extend(
        f"warning: in {name} the generator could not keep up"
        for name, result in results.items()
        if (result.get("generator") or {}).get("kept_up") is False
    )
    return lines


def _head(results: Mapping[str, Any]) -> list[str]:
    head = [""]
    for index, name in enumerate(results):
        head += [name] if index == 0 else [name, ""]
    return head


def _table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD)
    for index, name in enumerate(_head(results)):
        # A file name is not markup.
        shown.add_column(Text(name), justify="left" if index == 0 else "right", overflow="fold")
    for row in rows(results):
        shown.add_row(row.label, *row.cells())
    return shown


def comparison_page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The comparison as one HTML page."""
    from bench.load.report import plots  # imports matplotlib, which takes a second

    notes = "".join(f"<p>{escape(line)}</p>" for line in warnings(results))
    runs = [(name, result["model"], result["date"]) for name, result in results.items()]
    sources = (
        (
            "Distributions",
            "Share of the completed and incomplete requests that took at most this time.",
            plots.cdfs,
        ),
        ("Quality of experience", "Share of the requests with at most this score.", plots.qoe),
        ("Gaps between tokens", "Between successive deltas of an answer.", plots.token_gaps),
    )
    return page(
        "Load runs compared",
        "<h1>Load runs compared</h1>",
        table(("run", "model", "date"), runs, text=True),
        f'<div class="note warning">{notes}</div>' if notes else "",
        "<h2>Results, and multiples of the first run</h2>",
        table(_head(results), [[row.label, *row.cells()] for row in rows(results)]),
        *(figure(title, caption, draw(results)) for title, caption, draw in sources),
    )
