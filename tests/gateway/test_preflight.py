"""Checks before the start that concern emulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway import preflight
from gateway.config import Config, ServerConfig, WorkersConfig
from gateway.supervisor import worker_settings

ANY_PORT = ServerConfig(port=0)


def test_a_wrong_profile_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[step]\nbase = 1\n", encoding="utf-8")
    for emulate, said in (
        ("h100-qwen32", "no device profile 'h100-qwen32'; did you mean 'h100-qwen32b'?"),
        (str(path), "mine.toml: Object"),
    ):
        config = Config(server=ANY_PORT, workers=WorkersConfig(emulate=emulate))
        with pytest.raises(preflight.PreflightError) as caught:
            preflight.check(config)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_emulated_memory_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = WorkersConfig(count=8, kv_cache_gib=1000.0)
    monkeypatch.setattr(preflight, "_available_bytes", lambda: 8 * 2**30)
    monkeypatch.setattr(preflight, "cpu_build", lambda: True)
    with pytest.raises(preflight.PreflightError, match="Too little memory"):
        preflight.check(Config(server=ANY_PORT, workers=workers))
    preflight.check(Config(server=ANY_PORT, workers=replace(workers, emulate="h100-qwen32b")))


def test_a_folder_for_step_logs_must_exist_and_each_worker_gets_a_file(tmp_path: Path) -> None:
    config = Config(server=ANY_PORT, workers=WorkersConfig(step_log_dir=str(tmp_path / "none")))
    with pytest.raises(preflight.PreflightError, match=r"workers\.step_log_dir: .*none"):
        preflight.check(config)
    config = replace(config, workers=WorkersConfig(step_log_dir=str(tmp_path)))
    preflight.check(config)
    assert worker_settings(config, "worker-1", "").step_log == str(tmp_path / "worker-1.steps")
    assert worker_settings(Config(), "worker-1", "").step_log is None
