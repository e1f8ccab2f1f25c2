"""The series that a soak watches, and how much growth of each counts as noise."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity. Growth below ``rise``, or below ``share`` of the level, is noise."""

    name: str
    rise: float  # over the judged window, in the series' own unit
    share: float  # of the level, over the judged window
    reason: str  # why this much
    metric: str = ""  # the gateway's metric it is read from; empty: read from /proc or the disk
    scale: float = 1.0  # of the printed unit
    unit: str = ""


_LOAD = "follows the rate of responses, which varies by chance and with the machine's other work"
_ALLOCATOR = "malloc and Python keep freed memory in arenas; buffers of slow readers come and go"
SERIES = (
    Series("gateway rss", 5 * MIB, 0.03, _ALLOCATOR, scale=MIB, unit="MiB"),
    Series("worker-0 rss", 8 * MIB, 0.015, _ALLOCATOR, scale=MIB, unit="MiB"),
    Series("worker-1 rss", 8 * MIB, 0.015, _ALLOCATOR, scale=MIB, unit="MiB"),
    Series("gateway fds", 4, 0.08, "connections of readers come and go"),
    Series("worker-0 fds", 1.5, 0.02, "nothing in a worker opens files under load"),
    Series("worker-1 fds", 1.5, 0.02, "nothing in a worker opens files under load"),
    Series("open fds", 4, 0.08, "as gateway fds", metric="process_open_fds"),
    Series("sessions", 8, 0.1, _LOAD, metric="pascal_sessions"),
    Series("tasks", 8, 0.1, "as gateway fds", metric="pascal_asyncio_tasks"),
    Series(
        "log bytes", 0.25 * MIB, 0.1, _LOAD, metric="pascal_event_log_bytes", scale=MIB, unit="MiB"
    ),
    Series(
        "store bytes",
        4.5 * MIB,
        0.1,
        "SQLite's write-ahead log grows up to a checkpoint of 4 MiB",
        metric="pascal_store_bytes",
        scale=MIB,
        unit="MiB",
    ),
    Series(
        "store file",
        0.5 * MIB,
        0.1,
        "without the write-ahead log: pages are reused",
        scale=MIB,
        unit="MiB",
    ),
)
METRICS = tuple(series.metric for series in SERIES if series.metric)
