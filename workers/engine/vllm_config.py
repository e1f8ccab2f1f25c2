"""From `WorkerSettings` to vLLM's configuration, and the tokenizer that goes with it.

Decides what is set for every engine of this project: the scheduler plugin, the logits processor,
the ids they need, the memory for KV of preempted requests. The environment must be prepared before
this module is imported (see `workers.process`): vLLM and torch read it at import.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

import msgspec
import structlog
import torch
from vllm.config import KVTransferConfig, VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.platforms import current_platform
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.utils.network_utils import get_ip

from workers import step_log
from workers.emulation import executor
from workers.emulation.profile import load_profile
from workers.engine import structure
from workers.formats.form import chosen_for
from workers.formats.markers import Reading
from workers.formats.tokenizer import Tokenizer
from workers.kv import migration, nixl, offload
from workers.kv.connectors import combined
from workers.policy.settings import PolicySettings
from workers.scheduler.plugin import CONFIG_KEY, policy_settings
from workers.settings import WorkerSettings

_log = structlog.get_logger()

_GIB = 2**30
_COMPILER_S = 20.0  # for a compiler to say its version
_ANY_ADDRESS = ("0.0.0.0", "::")


def vllm_config(settings: WorkerSettings) -> VllmConfig:
    """The engine's configuration; :raises ValueError: if vLLM refuses the settings."""
    policy = _policy(settings)  # before the model is loaded, not after
    chosen = {
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "max_num_batched_tokens": settings.max_num_batched_tokens,
        "watermark": settings.watermark,
        "block_size": settings.block_size,
        "enforce_eager": _eager(settings),
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "seed": settings.seed,
        "num_gpu_blocks_override": settings.kv_blocks,
        "kv_cache_memory_bytes": _kv_bytes(settings),
        "kv_transfer_config": _kv_transfer(settings),
    }
    arguments: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    arguments |= {
        "model": settings.model,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "logits_processors": [
            "workers.engine.forced_lengths:LengthsProcessor",
            "workers.engine.exact_sampling:ExactSampling",  # the last one: it chooses the token
        ],
        "structured_outputs_config": structure.config(),
    }
    if settings.emulate is not None:
        arguments |= executor.arguments(settings)
    if arguments["enforce_eager"] and (current_platform.is_cpu() or _compile_problem()):
        _compile_nothing()
    config = AsyncEngineArgs(**(arguments | settings.engine_args)).create_engine_config()
    reading = _set_parsers(config, settings)
    scheduler = config.scheduler_config
    if settings.emulate is not None:
        scheduler.async_scheduling = True  # as on a GPU; vLLM switches it off for CPUs
    if scheduler.scheduler_cls is None:
        name = "PhaseAsyncScheduler" if scheduler.async_scheduling else "PhaseScheduler"
        scheduler.scheduler_cls = f"workers.scheduler.plugin.{name}"
    given = config.additional_config if isinstance(config.additional_config, dict) else {}
    plugin_options = policy | _token_ids(config, reading) | given.get(CONFIG_KEY, {})
    policy_settings(plugin_options)
    config.additional_config = given | {CONFIG_KEY: plugin_options}
    if settings.step_log is not None:
        config.additional_config[step_log.CONFIG_KEY] = settings.step_log
    return config


def _set_parsers(config: VllmConfig, settings: WorkerSettings) -> Reading:
    """Give the engine the parser of thoughts: structured output begins after them."""
    chosen = chosen_for(settings, config.model_config, load_tokenizer(config))
    outputs = config.structured_outputs_config
    outputs.reasoning_parser = chosen.names.reasoning or ""
    path = settings.reasoning_parser.partition(":")[0]
    if path.endswith(".py"):
        outputs.reasoning_parser_plugin = path  # for engines in other processes
    return chosen.reading


def load_tokenizer(config: VllmConfig) -> Tokenizer:
    """The model's tokenizer, the same object that the engine uses."""
    tokenizer: Tokenizer = cached_tokenizer_from_config(config.model_config)
    return tokenizer


def _kv_bytes(settings: WorkerSettings) -> int | None:
    if settings.kv_cache_gib is not None:
        return int(settings.kv_cache_gib * _GIB)
    # vLLM's default on CPU is nearly all memory of the machine, which several workers share.
    return _GIB if current_platform.is_cpu() else None


def _kv_transfer(settings: WorkerSettings) -> KVTransferConfig | None:
    return combined([*_migration(settings), *_offload(settings)])


def _migration(settings: WorkerSettings) -> list[KVTransferConfig]:
    if not settings.kv_migration or settings.emulate is not None:
        return []  # an emulated device has no KV that could be read
    if (problem := nixl.try_agent(here=current_platform.is_cpu())) is not None:
        _log.warning("kv_migration_unavailable", reason=f"{problem}; requests move without KV")
        return []
    return [migration.kv_transfer_config(reachable_host(settings.listen), settings.kv_held_s)]


def reachable_host(listen: str) -> str:
    """The address under which other workers reach one that listens there."""
    host = urllib.parse.urlsplit(listen).hostname if listen.startswith("tcp:") else None
    if host is None:
        return "127.0.0.1"
    return get_ip() if host in _ANY_ADDRESS else host


def _offload(settings: WorkerSettings) -> list[KVTransferConfig]:
    host_bytes = int(settings.kv_offload_gib * _GIB)
    if host_bytes and settings.emulate is not None:
        host_bytes = int(load_profile(settings.emulate).host.offload_bytes)
    if not host_bytes or settings.kv_resume == "recompute":
        return []  # nothing would ever be loaded
    available = _available_bytes()
    if settings.emulate is None and available is not None and host_bytes > available:
        reason = (
            f"kv_offload_gib asks for {host_bytes / _GIB:.1f} GiB of memory, and "
            f"{available / _GIB:.1f} GiB are available; preempted requests compute their KV again"
        )
        _log.warning("kv_offload_unavailable", reason=reason)
        return []
    return [offload.kv_transfer_config(host_bytes, settings.kv_resume)]


def _available_bytes() -> int | None:
    """Memory of this machine that nobody uses; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return sizes[0] * 1024 if sizes else None


def _eager(settings: WorkerSettings) -> bool:
    """Whether the model runs as it is written; also where nothing could compile it."""
    if settings.enforce_eager:
        return True
    problem = _compile_problem()
    if problem is not None:
        _log.warning("compile_unavailable", reason=f"{problem}; the model runs without, slower")
    return problem is not None


def _compile_nothing() -> None:
    """Let parts of vLLM that compile themselves when they are first used run as they are written.

    Log probabilities are one. The compilation would stop all requests for many seconds, and a
    machine without a compiler would lose its engine.
    """
    os.environ["TORCH_COMPILE_DISABLE"] = "1"  # for processes that the engine starts
    torch.compiler.set_stance("force_eager")


def _compile_problem() -> str | None:
    """Why torch.compile has no compiler for its code, or None."""
    on_cpu = current_platform.is_cpu()
    if not on_cpu and importlib.util.find_spec("triton") is None:
        return "torch.compile needs Triton, which is not installed"
    name, others = ("CXX", ("g++", "clang++")) if on_cpu else ("CC", ("gcc", "clang"))
    chosen = os.environ.get(name)
    tried = (chosen,) if chosen else others
    for compiler in tried:
        try:
            asked = [*shlex.split(compiler), "--version"]
            if subprocess.run(asked, capture_output=True, timeout=_COMPILER_S).returncode == 0:
                return None
        except (OSError, subprocess.TimeoutExpired):
            continue
    return f"torch.compile needs a compiler that works: {' or '.join(tried)} ({name} names another)"


def _policy(settings: WorkerSettings) -> dict[str, Any]:
    """The policy's part of the plugin's table; raises ValueError as `PolicySettings` does."""
    names = "policy quantum_tokens demotion_tokens low_water_s high_water_s calls".split()
    table = {name: getattr(settings, name) for name in names}
    PolicySettings.of(table)
    return table


def _token_ids(config: VllmConfig, reading: Reading) -> dict[str, Any]:
    """What the plugins would otherwise read from the tokenizer in the engine's process."""
    tokenizer: Any = load_tokenizer(config)
    generation_eos = config.model_config.try_get_generation_config().get("eos_token_id", [])
    eos = [generation_eos] if isinstance(generation_eos, int) else list(generation_eos)
    ids: dict[str, Any] = {"ending_token_ids": sorted({*tokenizer.all_special_ids, *eos})}
    ids["markers"] = msgspec.to_builtins(reading.markers)
    return ids
