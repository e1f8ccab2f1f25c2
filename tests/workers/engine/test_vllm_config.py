"""The configuration of vLLM that follows from settings, where optional parts are missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.workers.support.harness import MODEL
from workers import logs
from workers.engine import vllm_config
from workers.kv import nixl
from workers.settings import WorkerSettings

SETTINGS: dict[str, Any] = {
    "instance_id": "w",
    "listen": "unix:/x",
    "model": str(MODEL),
    "served_model_name": "m",
    "max_model_len": 64,
    "kv_blocks": 8,
}


def configured(**settings: Any) -> tuple[Any, list[Any]]:
    with capture_logs() as said:
        config = vllm_config.vllm_config(WorkerSettings(**(SETTINGS | settings)))
    return config, said


def test_without_nixl_a_worker_serves_and_moves_no_kv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nixl, "PROBLEM", "NIXL cannot be loaded: ImportError: CUDA 13")
    config, said = configured(kv_migration=True)
    assert config.kv_transfer_config is None
    (line,) = said
    assert line["event"] == "kv_migration_unavailable"
    assert "CUDA 13" in line["reason"]


def test_memory_for_offloaded_kv_that_is_not_there_is_done_without() -> None:
    config, said = configured(kv_offload_gib=1e6, kv_resume="reload")
    assert config.kv_transfer_config is None
    (line,) = said
    assert line["event"] == "kv_offload_unavailable"
    assert "kv_offload_gib asks for 1000000.0 GiB of memory" in line["reason"]
    config, said = configured(kv_offload_gib=0.01, kv_resume="reload")
    assert config.kv_transfer_config is not None
    assert said == []


@pytest.mark.parametrize(
    ("compiler", "problem"), [("/bin/true", None), ("/bin/false", "false"), ("/none", "none")]
)
def test_without_a_compiler_the_model_runs_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, compiler: str, problem: str | None
) -> None:
    monkeypatch.setenv("CXX", compiler)
    with capture_logs() as said:
        eager = vllm_config._eager(WorkerSettings(**SETTINGS, enforce_eager=False))
    assert eager == (problem is not None)
    assert [line["event"] for line in said] == ["compile_unavailable"] * eager
    assert problem is None or problem in said[0]["reason"]
    assert vllm_config._eager(WorkerSettings(**SETTINGS))


def test_a_broken_configuration_of_the_model_names_its_file(tmp_path: Path) -> None:
    for file in MODEL.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", ')
    with pytest.raises(Exception, match=r"config\.json") as caught:
        configured(model=str(tmp_path))
    assert logs.start_failure(caught.value) == (
        f"It looks like the config file at '{tmp_path}/config.json' is not a valid JSON file."
    )


def test_the_watermark_is_vllm_s_own() -> None:
    config, _ = configured(policy="fcfs", watermark=0.02)
    assert config.scheduler_config.watermark == 0.02
    assert configured()[0].scheduler_config.watermark == 0.0
