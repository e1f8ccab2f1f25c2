"""An executor that stands for a GPU: a script instead of the model, a clock instead of the device.

vLLM's engine, scheduler and KV-cache manager are real; tokens come from `workers.emulation.script`,
the times of steps from `workers.emulation.device_clock`.

Load it with ``distributed_executor_backend="workers.emulation.executor.EmulatedExecutor"`` and
``additional_config={"emulator": {"profile": NAME, "seed": N}}``; `arguments` gives both. How long a
step takes and how much KV memory there is come from the profile (`workers.emulation.profile`),
whatever model is loaded: of that only tokenizer, chat template and context length are used, and no
weights. Steps take real time. On vLLM's interface for executors of one's own this implements what a
model runner without one needs; whatever else is asked raises.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import structlog
import torch
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.executor.abstract import Executor
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheSpec
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput

from workers.emulation.device_clock import DeviceClock
from workers.emulation.offload import EmulatedOffload
from workers.emulation.profile import DeviceProfile, load_profile
from workers.emulation.script import Script, Words, script_of
from workers.messages import DeviceStats
from workers.scheduler.plugin import REQUEST_KEY, think_markers
from workers.settings import WorkerSettings

CONFIG_KEY = "emulator"  # in vLLM's additional_config

_log = structlog.get_logger()

_MAX_MODEL_LEN = 32_768  # tokens, where nothing else is asked for and the KV memory holds as many
_MAX_BATCHED_TOKENS = 8192  # per step: vLLM's own default for a device of 80 GB
_PAUSE_S = 0.001  # between two looks at whether KV has arrived: as vLLM's own loop, which sleeps
_DTYPES = {1: torch.float8_e4m3fn, 2: torch.bfloat16, 4: torch.float32}


def arguments(settings: WorkerSettings) -> dict[str, Any]:
    """Arguments of `EngineArgs` for emulation, in addition to the other settings.

    :raises ProfileError: if there is no such profile, or it is wrong.
    :raises ValueError: if the profile's KV memory cannot hold a request of the context length.
    """
    assert settings.emulate is not None
    kv = load_profile(settings.emulate).kv
    block_size = settings.block_size or kv.block_size
    blocks = settings.kv_blocks or kv.tokens // block_size
    holds = (blocks - 1) * block_size  # one is vLLM's null block
    max_model_len = settings.max_model_len or min(_MAX_MODEL_LEN, holds)
    if max_model_len > holds:
        raise ValueError(
            f"max_model_len: {max_model_len} tokens do not fit into the emulated KV memory of "
            f"{holds} tokens"
        )
    return {
        "distributed_executor_backend": f"{__name__}.{EmulatedExecutor.__name__}",
        "additional_config": {CONFIG_KEY: {"profile": settings.emulate, "seed": settings.seed}},
        "block_size": block_size,
        "num_gpu_blocks_override": blocks,
        "max_model_len": max_model_len,
        "max_num_batched_tokens": settings.max_num_batched_tokens or _MAX_BATCHED_TOKENS,
        "hf_overrides": {"max_position_embeddings": max_model_len},
    }


def name_of(profile: str) -> str:
    """A profile's name for people, whether it was given by name or by path."""
    return Path(profile).stem


class _StepOutput(Future[ModelRunnerOutput | None]):
    """Done when the device is; `result` sleeps until then, so that no thread is needed."""

    def __init__(self, output: ModelRunnerOutput | None, due_s: float, took: Callable[[], None]):
        super().__init__()
        self._output = output
        self._due_s = due_s
        self._took = took

    def done(self) -> bool:
        """Whether `result` would not wait."""
        return time.monotonic() >= self._due_s

    def result(self, timeout: float | None = None) -> ModelRunnerOutput | None:
        """The tokens, not before they are due."""
        wait_s = self._due_s - time.monotonic()
        if wait_s > 0.0:
            time.sleep(wait_s)
        self._took()
        return self._output


class EmulatedExecutor(Executor):
    """One emulated device."""

    @classmethod
    def supports_async_scheduling(cls) -> bool:
        """As a GPU does: the next step is scheduled while the last one runs."""
        return True

    def _init_executor(self) -> None:
        own = self.vllm_config.additional_config[CONFIG_KEY]
        self._name = name_of(own["profile"])
        self._seed: int = own["seed"]
        self._profile: DeviceProfile = load_profile(own["profile"])
        tokenizer = cached_tokenizer_from_config(self.model_config)
        self._words = Words.of(
            lambda text: tokenizer.encode(text, add_special_tokens=False),
            think_markers(self.vllm_config),
            tokenizer.eos_token_id,
        )
        self._scripts: dict[str, tuple[Script, int]] = {}  # with the prompt's length, until told
        self._pending: _StepOutput | None = None  # scheduled, its tokens not yet asked for
        self._offload: EmulatedOffload | None = None  # once the KV memory is known, if it is wanted
        self.reset_stats()

    @property
    def name(self) -> str:
        """The profile's name."""
        return self._name

    def reset_stats(self) -> None:
        """Forget what was done so far: the engine's first steps are not like the others."""
        self._clock = DeviceClock(time.monotonic)

    def stats(self) -> DeviceStats:
        """What the device has done so far."""
        clock, offload = self._clock, self._offload
        transfers = None if offload is None else offload.transfers
        return DeviceStats(
            passed_s=clock.now() - clock.started_s,
            steps=clock.steps,
            busy_s=clock.busy_s,
            starved_s=clock.starved_s,
            late_s=clock.late_s,
            stalled_s=transfers.stall_s if transfers else 0.0,
        )

    # ---- the engine starts

    def get_kv_cache_specs(self) -> list[dict[str, KVCacheSpec]]:
        """The KV memory of the profile's model."""
        kv = self._profile.kv
        spec = FullAttentionSpec(
            block_size=self.cache_config.block_size,
            num_kv_heads=kv.heads,
            head_size=kv.head_dim,
            dtype=_DTYPES[kv.dtype_bytes],
        )
        return [{f"model.layers.{layer}.self_attn.attn": spec for layer in range(kv.layers)}]

    def determine_available_memory(self) -> list[int]:
        """Bytes for KV; the number of blocks itself is overridden by `arguments`."""
        return [self._profile.kv.bytes_per_token * self._profile.kv.tokens]

    def get_supported_kv_cache_layouts(self) -> list[list[str]]:
        """Any: nothing is laid out."""
        return [["LBNHC", "LBHNC"]]

    def set_kv_cache_layout(self, layout_name: str) -> None:
        """Nothing is laid out."""

    def initialize_from_config(self, kv_cache_configs: list[KVCacheConfig]) -> None:
        """No memory is taken, neither on the device nor on its host."""
        if self.vllm_config.kv_transfer_config is not None:
            self._offload = EmulatedOffload(
                self.vllm_config,
                kv_cache_configs[0],
                block_bytes=self._profile.kv.bytes_per_token * self.cache_config.block_size,
                bytes_per_s=self._profile.links.host_bytes_per_s,
            )

    def get_kv_connector_handshake_metadata(self) -> list[Any]:
        """None: KV goes to the device's own host alone."""
        return []

    def compile_or_warm_up_model(self) -> None:
        """There is nothing to compile."""

    def reset_mm_cache(self) -> None:
        """There is none, as for the next."""

    def reset_encoder_cache(self) -> None:
        """vLLM calls both whatever the model."""

    @property
    def supported_tasks(self) -> tuple[str, ...]:
        """Text."""
        return ("generate",)

    def collective_rpc(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        """Reached only by what is not emulated."""
        raise NotImplementedError(f"an emulated device cannot {method}")

    def check_health(self) -> None:
        """It cannot break."""

    def shutdown(self) -> None:
        """Nothing is held."""

    # ---- the engine runs

    def execute_model(self, scheduler_output: SchedulerOutput, non_block: bool = False) -> Any:
        """Run a step; its tokens come from `sample_tokens`, as with vLLM's own model runner."""
        for request_id in scheduler_output.finished_req_ids:
            self._scripts.pop(request_id, None)
        if not scheduler_output.num_scheduled_tokens:
            pause = self._pause(scheduler_output)
            return pause if non_block else pause.result()
        work_before = bool(self._scripts)
        output, step_s = self._run(scheduler_output)
        clock = self._clock
        start_s = clock.begin(work_before=work_before)
        if self._offload is not None:
            start_s = self._offload.begin(scheduler_output, start_s)
        due_s = clock.run(start_s, step_s)
        if self._offload is not None:
            output.kv_connector_output = self._offload.end(scheduler_output, start_s, due_s)
        self._pending = _StepOutput(output, due_s, lambda: self._took(output, due_s))
        if (busy := clock.starving()) is not None:
            _log.warning("emulated_device_starved", busy=round(busy, 3))
        nothing: Future[None] = Future()
        nothing.set_result(None)
        return nothing if non_block else None

    def sample_tokens(self, grammar_output: GrammarOutput | None, non_block: bool = False) -> Any:
        """The tokens of the step that was submitted last."""
        pending, self._pending = self._pending, None
        assert pending is not None
        return pending if non_block else pending.result()

    def _pause(self, scheduled: SchedulerOutput) -> Future[ModelRunnerOutput | None]:
        """A step without tokens: at most KV transfers are in flight."""
        done: Future[ModelRunnerOutput | None] = Future()
        if self._offload is None:
            done.set_result(EMPTY_MODEL_RUNNER_OUTPUT)
            return done
        start_s = self._offload.begin(scheduled, self._clock.begin(work_before=False))
        due_s = start_s + _PAUSE_S
        self._clock.wait(due_s)
        transfers = self._offload.end(scheduled, start_s, due_s)
        output = ModelRunnerOutput.with_kv_conn_output_only(transfers)
        return _StepOutput(output, due_s, lambda: None)

    def _run(self, scheduled: SchedulerOutput) -> tuple[ModelRunnerOutput, float]:
        """What a step produces, and how long it takes."""
        tokens: dict[str, list[int]] = {}
        counts = scheduled.num_scheduled_tokens
        decodes = decode_kv = prefill = prefill2 = 0

        def take(request_id: str, computed: int, generated: int) -> None:
            nonlocal decodes, decode_kv, prefill, prefill2
            script, prompt_tokens = self._scripts[request_id]
            new = counts[request_id]
            end = computed + new
            # A chunk that ends before the known tokens do is part of a prefill and produces none.
            whole = end >= prompt_tokens + generated
            tokens[request_id] = [script.token(end - prompt_tokens)] if whole else []
            if new == 1:
                decodes += 1
                decode_kv += end
            else:
                prefill += new
                prefill2 += new * (2 * computed + new)

        for request in scheduled.scheduled_new_reqs:
            params = request.sampling_params
            facts = ((params.extra_args if params else None) or {}).get(REQUEST_KEY, {})
            script = script_of(self._words, request.prompt_token_ids, facts, self._seed)
            self._scripts[request.req_id] = (script, len(request.prompt_token_ids))
            take(request.req_id, request.num_computed_tokens, 0)
        cached = scheduled.scheduled_cached_reqs
        for request_id, computed, generated in zip(
            cached.req_ids, cached.num_computed_tokens, cached.num_output_tokens, strict=True
        ):
            take(request_id, computed, generated)
        ids = list(tokens)
        output = ModelRunnerOutput(
            req_ids=ids,
            req_id_to_index={request_id: index for index, request_id in enumerate(ids)},
            sampled_token_ids=list(tokens.values()),
        )
        return output, self._profile.step.seconds(decodes, decode_kv, prefill, prefill2)

    def _took(self, output: ModelRunnerOutput, due_s: float) -> None:
        # A step in flight when its last request ended is fetched with the next request's step.
        if any(request_id in self._scripts for request_id in output.req_ids):
            self._clock.fetched(due_s)
