"""The tables of ``pascal bench pacing``. Must not measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

_CASES = (
    ("path", "whole path, batch 64"),
    ("path_batch_8", "batch 8"),
    ("path_batch_256", "batch 256"),
    ("thoughts", "thoughts alone"),
    ("answers", "answers alone"),
    ("prototype", "prototype, batch 64"),
    ("send", "aiohttp's send"),
    ("write", "bare write"),
)


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def per_token_table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Microseconds of each case, the whole spread in brackets."""
    table = _table("CPU per delivered token, us (median of rounds)", "case", *results)
    for case, words in _CASES:
        cells = []
        for result in results.values():
            low, high = result["spread"].get(case, (None, None))
            cells.append("" if low is None else f"{result[case]:.1f} ({low:.1f}-{high:.1f})")
        if any(cells):
            table.add_row(words, *cells)
    ratios = [f"{result['path_over_send']:.2f}" for result in results.values()]
    table.add_row("path / send", *ratios)
    table.add_row("tokens/s", *(f"{result['tokens_s']:.0f}" for result in results.values()))
    table.add_row(
        "share of the gateway's core", *(f"{one['cpu_share']:.2f}" for one in results.values())
    )
    return table


def held_sides(results: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """All runs of the section, with their names."""
    sides = [("gateway", results), ("prototype", results["prototype"])]
    if (together := results["together"]) is not None:
        sides += [
            ("gateway, together", together),
            ("prototype, together", together["prototype"]),
        ]
    return sides


def held_table(results: Mapping[str, Any]) -> Table:
    """A row for each run."""
    table = _table(
        "Readers at 10 tokens/s on one core; together: all begin within seconds",
        "server",
        "readers",
        "tokens/s",
        "late p50 ms",
        "p99 ms",
        "max ms",
        "pause ms",
        "QoE min",
        "below 0.99",
        "core",
        "clients' core",
    )
    for name, one in held_sides(results):
        table.add_row(
            name,
            str(one["streams"]),
            f"{one['tokens_s']:.0f}",
            f"{one['late_p50_ms']:.1f}",
            f"{one['late_p99_ms']:.1f}",
            f"{one['late_max_ms']:.1f}",
            f"{one['worst_pause_ms']:.1f}",
            f"{one['qoe_min']:.4f}",
            f"{one['qoe_below_good']:.1%}",
            f"{one['cpu_share']:.2f}",
            f"{one['client_cpu_share'] + one['worker_cpu_share']:.2f}",
        )
    return table


def histogram_table(results: Mapping[str, Any]) -> Table:
    """Tokens by lateness."""
    buckets = list(results["histogram_ms"])
    columns = [bucket if bucket == "more" else f"<= {bucket}" for bucket in buckets]
    table = _table("Tokens by lateness in ms", "server", *columns)
    for name, one in held_sides(results):
        table.add_row(name, *(str(one["histogram_ms"][bucket]) for bucket in buckets))
    return table


def memory_table(results: Mapping[str, Any]) -> Table:
    """Bytes of each thing."""
    table = _table("Memory of the gateway (differences of its RSS)", "of each", "bytes")
    tokens = results["tokens_per_response"]
    for key, words in (
        ("idle_stream_bytes", "connected WebSocket, nothing running"),
        ("running_response_bytes", "running response without tokens"),
        ("buffered_token_bytes", "token that is generated and not released"),
        ("kept_token_bytes", "token that is released and kept"),
        ("finished_response_bytes", f"finished response of {tokens} tokens, all of it"),
    ):
        table.add_row(words, f"{results[key]:.0f}")
    return table


def collection_table(results: Mapping[str, Any]) -> Table:
    """The time of a collection."""
    table = _table("Full garbage collection", "sessions", "tokens of each", "objects", "added ms")
    table.add_row(
        str(results["sessions"]),
        str(results["tokens_per_session"]),
        str(results["tracked_objects"]),
        f"{results['added_ms']:.1f}",
    )
    return table
