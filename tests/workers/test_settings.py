from __future__ import annotations

from typing import Any

import msgspec
import pytest

from workers.settings import WorkerSettings

MINIMAL: dict[str, Any] = {
    "instance_id": "a",
    "listen": "unix:/x",
    "model": "m",
    "served_model_name": "m",
}


def test_settings_survive_the_command_line() -> None:
    settings = WorkerSettings(**MINIMAL, cpu_cores=(1, 2), kv_blocks=7, engine_args={"a": [1]})
    assert msgspec.json.decode(msgspec.json.encode(settings), type=WorkerSettings) == settings


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"kv_block": 7}, "kv_block"),
        ({"engine": "both"}, "engine"),
        ({"cpu_cores": "0"}, "cpu_cores"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.convert(MINIMAL | change, WorkerSettings)
