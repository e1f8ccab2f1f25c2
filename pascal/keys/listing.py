"""``pascal keys list``: the API keys of a store, and what was used with them."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from gateway.store import Connection, KeyUsage, StoredKey, keys_in, usage_in
from pascal.keys import file

_DAY_S = 86400
_MONTH_DAYS = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``pascal keys list``."""
    parser.add_argument("--all", action="store_true", help="also keys that were revoked")
    parser.add_argument("--json", action="store_true", help="as one JSON array")
    file.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """List the keys; :return: the exit status."""

    def work(connection: Connection) -> list[dict[str, Any]]:
        today = int(time.time() // _DAY_S)
        of_day = usage_in(connection, today, today)
        of_month = usage_in(connection, today - _MONTH_DAYS + 1, today)
        return [
            _row(key, of_day.get(key.key_id, KeyUsage()), of_month.get(key.key_id, KeyUsage()))
            for key in keys_in(connection)
            if args.all or key.revoked_at is None
        ]

    def tell(shown: list[dict[str, Any]], place: str) -> int:
        if args.json:
            print(json.dumps(shown, indent=2))
        elif shown:
            for row in shown:
                print(_text(row))
        else:
            print(f"There are no keys in {place}.")
        return 0

    return file.run(args, work, tell)


def _row(key: StoredKey, today: KeyUsage, month: KeyUsage) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": sorted(key.scopes),
        "limits": asdict(key.limits),
        "priority": key.priority,
        "created_at": _date(key.created_at),
        "revoked_at": None if key.revoked_at is None else _date(key.revoked_at),
        "used_today": asdict(today),
        "used_in_30_days": asdict(month),
    }


def _text(row: dict[str, Any]) -> str:
    limits = [
        f"{name.replace('_', ' ')}: {value}" for name, value in row["limits"].items() if value
    ]
    lines = [
        f"{row['name']}  {row['id']}  {row['prefix']}...",
        f"  scopes: {', '.join(row['scopes'])}; priority: {row['priority']}",
        f"  limits: {', '.join(limits) or 'none'}",
        f"  today: {_used(row['used_today'])}; in 30 days: {_used(row['used_in_30_days'])}",
        f"  added {row['created_at']}",
    ]
    if row["revoked_at"]:
        lines[-1] += f", revoked {row['revoked_at']}"
    return "\n".join(lines)


def _used(used: dict[str, int]) -> str:
    tokens = used["prompt_tokens"] + used["output_tokens"]
    return f"{used['requests']} requests, {tokens} tokens"


def _date(unix_s: float) -> str:
    return datetime.fromtimestamp(int(unix_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
