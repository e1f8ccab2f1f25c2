"""An executor that emulates a GPU: a script replaces the model, and a clock replaces the device.

vLLM's engine, scheduler and KV-cache manager are real. Tokens come from `workers.emulation.script`.
`workers.emulation.device_clock` decides when steps end; they take real time.

Load it with ``distributed_executor_backend="workers.emulation.executor.EmulatedExecutor"`` and
``additional_config={"emulator": {"profile": NAME, "seed": N}}``; `arguments` gives both. The
profile (`workers.emulation.profile`) defines step times and KV memory. A model must be configured
as well, but only its tokenizer, chat template and context length are used; no weights are loaded.

The class implements the part of vLLM's `Executor` that an engine without a model runner calls.
Other calls raise `NotImplementedError`.
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
from workers.scheduler.plugin import REQUEST_KEY, markers_of
from workers.settings import WorkerSettings

CONFIG_KEY = "emulator"  # in vLLM's additional_config

_log = structlog.get_logger()

_MAX_MODEL_LEN = 32_768  # tokens; default, if the KV memory holds as many
_MAX_BATCHED_TOKENS = 8192  # per step: vLLM's own default for a device of 80 GB
_PAUSE_S = 0.001  # between two checks for arrived KV; vLLM's own loop sleeps as long
_DTYPES = {1: torch.float8_e4m3fn, 2: torch.bfloat16, 4: torch.float32}


def arguments(settings: WorkerSettings) -> dict[str, Any]:
    """Arguments of `EngineArgs` for emulation. They override those that the other settings give.

    :raises ProfileError: if the profile does not exist or is wrong.
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
    """The short name of a profile that is given by name or by path."""
    return Path(profile).stem


class _StepOutput(Future[ModelRunnerOutput | None]):
    """The output of a step, done when the device is. `result` sleeps until then."""

    def __init__(self, output: ModelRunnerOutput | None, due_s: float, took: Callable[[], None]):
        super().__init__()
        self._output = output
        self._due_s = due_s
        self._took = took

    def done(self) -> bool:
        """Whether the step is over, so that `result` returns at once."""
        return time.monotonic() >= self._due_s

    def result(self, timeout: float | None = None) -> ModelRunnerOutput | None:
        """Wait until the step is over; return its output. The timeout is ignored."""
        wait_s = self._due_s - time.monotonic()
        if wait_s > 0.0:
            time.sleep(wait_s)
        self._took()
        return self._output


class EmulatedExecutor(Executor):
    """One emulated device."""

    @classmethod
    def supports_async_scheduling(cls) -> bool:
        """True: as on a GPU, vLLM may schedule the next step while one runs."""
        return True

    def _init_executor(self) -> None:
        options = self.vllm_config.additional_config[CONFIG_KEY]
        self._name = name_of(options["profile"])
        self._seed: int = options["seed"]
        self._profile: DeviceProfile = load_profile(options["profile"])
        tokenizer = cached_tokenizer_from_config(self.model_config)
        self._words = Words.of(
            lambda text: tokenizer.encode(text, add_special_tokens=False),
            markers_of(self.vllm_config),
            tokenizer.eos_token_id,
        )
        self._scripts: dict[str, tuple[Script, int]] = {}  # by request, with the prompt's length
        self._pending: _StepOutput | None = None  # runs, and its tokens were not asked for yet
        self._offload: EmulatedOffload | None = None  # set with the KV memory, if KV is offloaded
        self.reset_stats()

    @property
    def name(self) -> str:
        """The profile's name."""
        return self._name

    def reset_stats(self) -> None:
        """Set all statistics to 0. Call it after warming up, whose steps are not typical."""
        self._clock = DeviceClock(time.monotonic)

    def stats(self) -> DeviceStats:
        """Statistics of the device since the last reset."""
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

    # ---- called when the engine starts

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
        """Bytes of KV memory. The number of blocks does not come from it: `arguments` sets that."""
        return [self._profile.kv.bytes_per_token * self._profile.kv.tokens]

    def get_supported_kv_cache_layouts(self) -> list[list[str]]:
        """Two of vLLM's layouts. Nothing is laid out, so any would do."""
        return [["LBNHC", "LBHNC"]]

    def set_kv_cache_layout(self, layout_name: str) -> None:
        """Do nothing: there is no memory to lay out."""

    def initialize_from_config(self, kv_cache_configs: list[KVCacheConfig]) -> None:
        """Prepare KV offload if it is configured. No memory is allocated, on device or host."""
        if self.vllm_config.kv_transfer_config is not None:
            self._offload = EmulatedOffload(
                self.vllm_config,
                kv_cache_configs[0],
                block_bytes=self._profile.kv.bytes_per_token * self.cache_config.block_size,
                bytes_per_s=self._profile.links.host_bytes_per_s,
            )

    def get_kv_connector_handshake_metadata(self) -> list[Any]:
        """No metadata: KV moves only between the device and its own host."""
        return []

    def compile_or_warm_up_model(self) -> None:
        """Do nothing: there is no model to compile."""

    def reset_mm_cache(self) -> None:
        """Do nothing: there is no multimodal cache."""

    def reset_encoder_cache(self) -> None:
        """Do nothing: there is no encoder cache."""

    @property
    def supported_tasks(self) -> tuple[str, ...]:
        """Text generation only."""
        return ("generate",)

    def collective_rpc(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        """Refuse every remote call: none of them is emulated.

        :raises NotImplementedError: always.
        """
        raise NotImplementedError(f"an emulated device does not support {method}")

    def check_health(self) -> None:
        """Do nothing: the device cannot fail."""

    def shutdown(self) -> None:
        """Do nothing: there are no resources to release."""

    # ---- called when the engine runs

    def execute_model(self, scheduler_output: SchedulerOutput, non_block: bool = False) -> Any:
        """Start a step. `sample_tokens` returns its tokens, as with vLLM's own model runner."""
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
        """Return the tokens of the step that `execute_model` started last."""
        pending, self._pending = self._pending, None
        assert pending is not None
        return pending if non_block else pending.result()

    def _pause(self, scheduled: SchedulerOutput) -> Future[ModelRunnerOutput | None]:
        """Run a step without tokens. It takes a moment if KV is offloaded."""
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
        """The output of a step, and its duration in seconds."""
        tokens: dict[str, list[int]] = {}
        counts = scheduled.num_scheduled_tokens
        decodes = decode_kv = prefill = prefill2 = 0

        def take(request_id: str, computed: int, generated: int) -> None:
            nonlocal decodes, decode_kv, prefill, prefill2
            script, prompt_tokens = self._scripts[request_id]
            new = counts[request_id]
            end = computed + new
            # A chunk that ends before the last known token is part of a prefill and produces none.
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
        # If all requests of a step ended while it ran, vLLM fetches it together with a later step.
        # Its lateness says nothing, so it is not counted.
        if any(request_id in self._scripts for request_id in output.req_ids):
            self._clock.fetched(due_s)
