"""Output files of a run: JSON, CSV, HTML. All are checked before the load begins."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.load.agents.results import TaskResult
from bench.load.measure import RequestResult
from bench.load.options import OptionError, Options

# The server's metrics of a request, which follow the plain values in the CSV.
_SERVER_COLUMNS = (
    ("raw", "ttft_s"),
    ("raw", "tpot_s"),
    ("raw", "e2e_s"),
    ("paced", "ttft_s"),
    ("paced", "ttfat_s"),
    ("paced", "tpot_s"),
)
_NOT_IN_CSV = ("itl_s", "timing")


def prepare_outputs(options: Options) -> None:
    """Make sure that every file can be written, without changing existing ones.

    :raises OptionError: naming the flag and the file.
    """
    if options.save_result:
        if options.result_filename is not None:
            prepare_file("--result-filename", options.result_dir / options.result_filename)
        else:
            probe = options.result_dir / f".write-test-{datetime.now().astimezone():%f}"
            prepare_file("--result-dir", probe)
    for flag, path in (("--csv", options.csv), ("--html", options.html)):
        if path is not None:
            prepare_file(flag, path)
    if options.csv is not None and options.agents:
        prepare_file("--csv", tasks_path(options.csv))


def prepare_file(flag: str, path: Path) -> None:
    """Open for writing, but leave no empty file behind: the run may end without a result."""
    there = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            pass
        if not there:
            path.unlink()
    except OSError as error:
        raise OptionError(f"{flag} {path}: {error.strerror}") from error


def tasks_path(csv_path: Path) -> Path:
    """The file of an agents' run with one row per task: ``run.csv`` gives ``run.tasks.csv``."""
    return csv_path.with_suffix(f".tasks{csv_path.suffix}")


def result_path(options: Options, model: str, started: datetime) -> Path:
    """Path of the JSON file."""
    name = options.result_filename
    if name is None:
        base = model.rstrip("/").rsplit("/", 1)[-1]
        rate = "trace" if options.request_rate is None else f"{options.request_rate:g}qps"
        name = f"load-{rate}-{base}-{started:%Y%m%d-%H%M%S}.json"
    return options.result_dir / name


def write_outputs(options: Options, result: Mapping[str, Any]) -> list[Path]:
    """Write the files that the flags ask for; :return: their paths.

    :raises OSError: if a file that was checked can no longer be written.
    """
    written: list[Path] = []
    if options.save_result:
        started = datetime.fromisoformat(result["date"])
        path = result_path(options, result["model"], started)
        path.write_text(json.dumps(result, allow_nan=False), encoding="utf-8")
        written.append(path)
    if options.csv is not None:
        write_csv(options.csv, result["requests"])
        written.append(options.csv)
        if result.get("agents"):
            path = tasks_path(options.csv)
            write_tasks(path, result["agents"]["tasks"])
            written.append(path)
    if options.html is not None:
        from bench.load.report.html import report_page

        options.html.write_text(report_page(result), encoding="utf-8")
        written.append(options.html)
    return written


def write_csv(path: Path, requests: list[dict[str, Any]]) -> None:
    """One row per request. Times are in seconds; a cell without a measurement is empty."""
    plain = [field.name for field in fields(RequestResult) if field.name not in _NOT_IN_CSV]
    server = [f"server_{kind}_{name}" for kind, name in _SERVER_COLUMNS]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*plain, *server])
        for request in requests:
            writer.writerow(
                [_cell(request[name]) for name in plain]
                + [_server_metric(request, kind, name) for kind, name in _SERVER_COLUMNS]
            )


def write_tasks(path: Path, tasks: list[dict[str, Any]]) -> None:
    """One row per task, as `write_csv`."""
    names = [field.name for field in fields(TaskResult)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([_cell(task[name]) for name in names] for task in tasks)


def _cell(value: Any) -> Any:
    """Mark text that a spreadsheet would run as a formula (OWASP, CSV injection)."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def _server_metric(request: Mapping[str, Any], kind: str, name: str) -> float | None:
    metrics = (request["timing"] or {}).get(kind) or {}
    value: float | None = metrics.get(name)
    return value
