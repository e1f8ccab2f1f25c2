"""Every member of vLLM that this project touches, what it relies on, and why.

vLLM is used unforked, in the version that ``pyproject.toml`` pins, and promises almost none of
this. The table is what an upgrade checks first: `tests/docs/test_vllm.py` compares it with the vLLM
that is installed, and with the sources of this project. ``docs/reference/vllm.md`` is generated
from it. Pure data.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class PlugPoint(NamedTuple):
    """A setting of vLLM that names code of ours."""

    setting: str  # of vLLM's `AsyncEngineArgs`
    ours: tuple[str, ...]  # what stands there
    why: str


class Touched(NamedTuple):
    """Members of one class or module.

    A member that is called, or that a class of ours overrides, has its signature: parameters and
    defaults. A signature that ends with ``...`` is of a member that is only called: it may have
    further parameters, as long as these have defaults. All other members are attributes, fields,
    properties, classes or constants.
    """

    owner: str  # a module, or ``module.Class``
    why: str
    members: tuple[str, ...]


PLUG_POINTS = (
    PlugPoint(
        "scheduler_cls",
        ("workers.scheduler.PhaseScheduler", "workers.scheduler.PhaseAsyncScheduler"),
        "phases, policies, statistics",
    ),
    PlugPoint(
        "additional_config",
        (
            "workers.scheduler.plugin.CONFIG_KEY",
            "workers.step_log.CONFIG_KEY",
            "workers.emulation.executor.CONFIG_KEY",
        ),
        "our own tables: `phase`, `step_log`, `emulator`",
    ),
    PlugPoint(
        "logits_processors",
        (
            "workers.engine.forced_lengths.LengthsProcessor",
            "workers.engine.exact_sampling.ExactSampling",
        ),
        "forced lengths, thinking budgets; seeds and penalties that survive a move",
    ),
    PlugPoint(
        "kv_transfer_config",
        ("workers.kv.migration.MigrationConnector", "workers.kv.offload.ResumeConnector"),
        "KV that follows its request, KV in host memory",
    ),
    PlugPoint(
        "distributed_executor_backend",
        ("workers.emulation.executor.EmulatedExecutor",),
        "emulated instances",
    ),
)

# Methods that `workers.scheduler.engine_core_calls` adds to vLLM's `EngineCore`, so that a client
# can call them by name from another process.
ADDED_TO_ENGINE_CORE = (
    "set_pace",
    "turn",
    "hand_over",
    "use_policy",
    "kv_endpoint",
    "meet_peer",
)

_IMPORTED = """
vllm:
    LLM SamplingParams
vllm.config:
    KVTransferConfig ModelConfig StructuredOutputsConfig VllmConfig
vllm.distributed.kv_transfer:
    get_kv_transfer_group()
vllm.distributed.kv_transfer.kv_connector.factory:
    KVConnectorFactory
vllm.distributed.kv_transfer.kv_connector.utils:
    BlockIds
vllm.distributed.kv_transfer.kv_connector.v1:
    KVConnectorRole
vllm.distributed.kv_transfer.kv_connector.v1.base:
    KVConnectorMetadata KVConnectorTransferResults
vllm.distributed.kv_transfer.kv_connector.v1.multi_connector:
    MultiConnector MultiKVConnectorMetadata
vllm.distributed.kv_transfer.kv_connector.v1.nixl:
    NixlPullConnector NixlPullConnectorScheduler NixlPullConnectorWorker
vllm.distributed.kv_transfer.kv_connector.v1.nixl.connector:
    NixlBaseConnector
vllm.distributed.kv_transfer.kv_connector.v1.nixl.metadata:
    GET_META_MSG NixlConnectorMetadata ReqMeta
vllm.distributed.kv_transfer.kv_connector.v1.offloading.common:
    OffloadingConnectorMetadata OffloadingWorkerMetadata
vllm.distributed.kv_transfer.kv_connector.v1.offloading.config:
    build_offloading_config(vllm_config, kv_cache_config)
vllm.distributed.kv_transfer.kv_connector.v1.offloading.worker:
    OffloadingConnectorWorker
vllm.distributed.kv_transfer.kv_connector.v1.offloading_connector:
    OffloadingConnector
vllm.distributed.nixl_utils:
    NixlWrapper nixl_agent_config
vllm.engine.arg_utils:
    AsyncEngineArgs EngineArgs
vllm.entrypoints.openai.chat_completion.protocol:
    ChatCompletionRequest ChatCompletionToolsParam
vllm.entrypoints.openai.parser.harmony_utils:
    build_harmony_preamble(*, instructions=None, tools=None, reasoning_effort=None, ...)
    extract_instructions_from_messages(messages)
    parse_chat_inputs_to_harmony_messages(chat_msgs)
    render_for_completion(messages)
vllm.exceptions:
    VLLMClientError VLLMValidationError
vllm.inputs.engine:
    tokens_input(prompt_token_ids, ...)
vllm.logprobs:
    Logprob
vllm.outputs:
    CompletionOutput RequestOutput
vllm.parser:
    Parser ParserManager
vllm.parser.engine.parser_engine_config:
    ParserEngineConfig ParserState
vllm.parser.harmony:
    HarmonyParser
vllm.platforms:
    current_platform
vllm.reasoning:
    ReasoningParser ReasoningParserManager
vllm.renderers:
    BaseRenderer ChatParams
vllm.renderers.hf:
    HfRenderer
    resolve_chat_template(tokenizer, chat_template, tools, *, model_config)
vllm.renderers.mistral:
    MistralRenderer
vllm.renderers.registry:
    renderer_from_config(config, ...)
vllm.sampling_params:
    RequestOutputKind SamplingParams StructuredOutputsParams
vllm.tokenizers:
    cached_tokenizer_from_config(model_config, ...)
vllm.tool_parsers:
    ToolParser ToolParserManager
vllm.tool_parsers.streaming:
    extract_named_tool_call_streaming(*, delta_text, function_name, function_name_returned,
    tool_call_idx, tool_call_id_type, tokenizer, ...)
    extract_required_tool_call_streaming(*, previous_text, current_text, tool_call_idx,
    tool_call_id_type)
vllm.utils.hashing:
    sha256(input)
vllm.utils.network_utils:
    get_ip()
vllm.v1.core.kv_cache_manager:
    KVCacheBlocks
vllm.v1.core.kv_cache_utils:
    get_request_block_hasher(hash_block_size, caching_hash_fn)
    init_none_hash(hash_fn)
    KVCacheBlock
vllm.v1.core.sched.async_scheduler:
    AsyncScheduler
vllm.v1.core.sched.interface:
    PauseState
vllm.v1.core.sched.output:
    CachedRequestData GrammarOutput SchedulerOutput
vllm.v1.core.sched.request_queue:
    create_request_queue(policy)
    PriorityRequestQueue RequestQueue SchedulingPolicy
vllm.v1.core.sched.scheduler:
    Scheduler
vllm.v1.engine:
    EngineCoreOutput EngineCoreOutputs FinishReason
vllm.v1.engine.async_llm:
    AsyncLLM
vllm.v1.engine.core:
    EngineCore
vllm.v1.engine.core_client:
    InprocClient
vllm.v1.engine.input_processor:
    InputProcessor
vllm.v1.engine.llm_engine:
    LLMEngine
vllm.v1.engine.output_processor:
    RequestOutputCollector
vllm.v1.executor.abstract:
    Executor
vllm.v1.kv_cache_interface:
    FullAttentionSpec KVCacheConfig KVCacheGroupSpec KVCacheSpec
vllm.v1.kv_offload.base:
    CanonicalKVCaches GPULoadStoreSpec LoadStoreSpec OffloadingWorker TransferResult
vllm.v1.kv_offload.config:
    OffloadingConfig
vllm.v1.kv_offload.cpu.common:
    CPULoadStoreSpec
vllm.v1.kv_offload.cpu.spec:
    CPUOffloadingSpec
vllm.v1.kv_offload.factory:
    OffloadingSpecFactory
vllm.v1.metrics.loggers:
    StatLoggerBase
vllm.v1.metrics.stats:
    IterationStats MultiModalCacheStats SchedulerStats
vllm.v1.outputs:
    EMPTY_MODEL_RUNNER_OUTPUT KVConnectorOutput ModelRunnerOutput
vllm.v1.request:
    Request RequestStatus
vllm.v1.sample.logits_processor:
    BatchUpdate LogitsProcessor
vllm.v1.sample.logits_processor.builtin:
    process_dict_updates(req_entries, batch_update, new_state)
vllm.v1.sample.ops.penalties:
    apply_all_penalties(logits, prompt_token_ids, presence_penalties, frequency_penalties,
        repetition_penalties, output_token_ids)
vllm.v1.sample.ops.topk_topp_sampler:
    apply_top_k_top_p(logits, k, p)
    sample_with_exponential_noise(probs, q)
vllm.v1.structured_output:
    StructuredOutputManager
vllm.v1.structured_output.backend_types:
    StructuredOutputGrammar
vllm.v1.structured_output.backend_xgrammar:
    XgrammarBackend
vllm.v1.structured_output.request:
    get_structured_output_key(params)
vllm.v1.structured_output.utils:
    choice_as_grammar(choice)
"""

_MEMBERS = """
vllm.config.cache.CacheConfig:
    # size and number of KV blocks
    block_size num_gpu_blocks
vllm.config.kv_transfer.KVTransferConfig:
    # names the KV connectors and their settings
    engine_id kv_buffer_device kv_connector kv_connector_extra_config
    kv_connector_module_path kv_load_failure_policy kv_role
vllm.config.model.ModelConfig:
    # context length, default sampling parameters, end-of-sequence tokens, kind of model
    get_diff_sampling_param(self)
    get_vocab_size(self)
    try_get_generation_config(self)
    architectures hf_config hf_text_config is_encoder_decoder is_hybrid max_model_len
    skip_tokenizer_init
vllm.config.reasoning.ReasoningConfig:
    # the markers of thinking, where vLLM is told them
    enabled natural_reasoning_end_token_ids reasoning_start_token_ids
vllm.config.scheduler.SchedulerConfig:
    # chooses the scheduler class; synchronous or asynchronous scheduling
    async_scheduling scheduler_cls
vllm.config.structured_outputs.StructuredOutputsConfig:
    # one backend for the structure of answers, which begins after the thoughts
    backend disable_any_whitespace reasoning_parser reasoning_parser_plugin
vllm.config.vllm.VllmConfig:
    # the parts of the configuration; our own tables travel in `additional_config`
    additional_config cache_config kv_transfer_config model_config reasoning_config
    scheduler_config structured_outputs_config
vllm.distributed.kv_transfer.kv_connector.factory.KVConnectorFactory:
    # KV offload in emulation and simulation
    create_connector(config, role, kv_cache_config)
vllm.distributed.kv_transfer.kv_connector.v1.base.KVConnectorBase_V1:
    # KV offload in emulation and simulation, where no model runner calls the connector
    bind_connector_metadata(self, connector_metadata)
    build_connector_worker_meta(self)
    clear_connector_metadata(self)
    get_transfer_results(self, finished_req_ids)
    handle_preemptions(self, kv_connector_metadata)
    start_load_kv(self, forward_context, ...)
    wait_for_save(self)
vllm.distributed.kv_transfer.kv_connector.v1.base.KVConnectorRole:
    # whether a connector is the scheduler's or the worker's side
    SCHEDULER WORKER
vllm.distributed.kv_transfer.kv_connector.v1.base.KVConnectorTransferResults:
    # which KV has arrived, and which has been read by others
    finished_recving finished_sending
vllm.distributed.kv_transfer.kv_connector.v1.multi_connector.MultiConnector:
    # finds our connectors among several
    sub_connectors
vllm.distributed.kv_transfer.kv_connector.v1.multi_connector.MultiKVConnectorMetadata:
    # finds what our connectors told their workers
    metadata
vllm.distributed.kv_transfer.kv_connector.v1.nixl.connector.NixlBaseConnector:
    # its constructor, which leaves out vLLM's two sides
    __init__(self, vllm_config, role, kv_cache_config)
vllm.distributed.kv_transfer.kv_connector.v1.nixl.connector.NixlPullConnector:
    # puts our two sides in the place of vLLM's
    __init__(self, vllm_config, role, kv_cache_config)
    connector_scheduler connector_worker engine_id requires_kv_delivery
vllm.distributed.kv_transfer.kv_connector.v1.nixl.metadata.NixlConnectorMetadata:
    # is extended by the tickets that are released
    __init__(self)
vllm.distributed.kv_transfer.kv_connector.v1.nixl.metadata.RemoteMeta:
    # where a ticket is claimed, and which blocks it is for
    block_ids engine_id host port request_id
vllm.distributed.kv_transfer.kv_connector.v1.nixl.metadata.ReqMeta:
    # the blocks of a request that reads KV
    awaiting_kvs local_block_ids remote
vllm.distributed.kv_transfer.kv_connector.v1.nixl.pull_scheduler.NixlPullConnectorScheduler:
    # tickets: KV leaves in mid-decode, and nobody reads it without a claim
    __init__(self, vllm_config, engine_id, kv_cache_config)
    build_connector_meta(self, scheduler_output)
    get_num_new_matched_tokens(self, request, num_computed_tokens)
    on_new_request(self, request)
    request_finished(self, request, block_ids)
    update_connector_output(self, connector_output)
    update_state_after_alloc(self, request, blocks, num_external_tokens)
    _nixl_handshake_listener(encoded_data, ready_event, stop_event, host, port)
    block_size engine_id side_channel_host side_channel_port transfer_tp_size
    _is_hma_required _kv_lease_duration _reqs_in_batch _reqs_need_send
vllm.distributed.kv_transfer.kv_connector.v1.nixl.pull_worker.NixlPullConnectorWorker:
    # claims before reads; KV that arrives too late is thrown away; engines meet before a request
    # moves; a peer's wrong message ends one read only
    __init__(self, vllm_config, engine_id, kv_cache_config)
    get_transfer_results(self)
    start_load_kv(self, metadata)
    _ensure_handshake(self, engine_id, host, port, tp_size, ...)
    _get_new_notifs(self)
    _handle_failed_transfer(self, req_id, handle, failed_req_ids=None, ...)
    _log_failure(self, failure_type, req_id, error=None, meta=None, ...)
    _pop_done_transfers(self, transfers)
    _read_blocks_for_req(self, req_id, meta)
    engine_id nixl_wrapper world_size _failed_recv_reqs _handshake_initiation_executor
    _ready_requests _recv_failures _remote_agents _reqs_to_process _reqs_to_send
vllm.distributed.kv_transfer.kv_connector.v1.offloading.common.DirectionalTransferStats:
    # how long it takes to reload KV
    bytes sizes time
vllm.distributed.kv_transfer.kv_connector.v1.offloading.common.OffloadingConnectorMetadata:
    # whether a step waits for KV to be loaded
    load_jobs
vllm.distributed.kv_transfer.kv_connector.v1.offloading.common.OffloadingWorkerMetadata:
    # how long it takes to reload KV
    transfer_stats
vllm.distributed.kv_transfer.kv_connector.v1.offloading.common.TransferStats:
    # how long it takes to reload KV
    load
vllm.distributed.kv_transfer.kv_connector.v1.offloading.scheduler.OffloadingConnectorScheduler:
    # whether KV of a request is being copied, and what has been stored
    _req_status
vllm.distributed.kv_transfer.kv_connector.v1.offloading.worker.OffloadingConnectorWorker:
    # runs on modelled transfers
    __init__(self, spec, vllm_config, kv_cache_config)
    worker
vllm.distributed.kv_transfer.kv_connector.v1.offloading_connector.OffloadingConnector:
    # reloads only what is cheaper to reload than to compute
    __init__(self, vllm_config, role, kv_cache_config)
    get_num_new_matched_tokens(self, request, num_computed_tokens)
    request_finished_all_groups(self, request, block_ids)
    update_connector_output(self, connector_output)
    update_state_after_alloc(self, request, blocks, num_external_tokens)
    connector_worker scheduler
vllm.engine.arg_utils.AsyncEngineArgs:
    # settings of a worker's engine
    create_engine_config(self, ...)
    additional_config block_size disable_log_stats distributed_executor_backend dtype
    enable_prefix_caching enforce_eager gpu_memory_utilization hf_overrides
    kv_cache_memory_bytes kv_transfer_config logits_processors max_model_len
    max_num_batched_tokens max_num_seqs model num_gpu_blocks_override seed
    structured_outputs_config tensor_parallel_size watermark
vllm.engine.arg_utils.EngineArgs:
    # settings of a simulated engine
    create_engine_config(self, ...)
    block_size enable_prefix_caching enforce_eager hf_overrides max_model_len
    max_num_batched_tokens max_num_seqs model skip_tokenizer_init watermark
vllm.entrypoints.llm.LLM:
    # evaluates the embedded model
    __init__(self, model, *, dtype='auto', seed=0, enforce_eager=False, ...)
    generate(self, prompts, sampling_params=None, *, use_tqdm=True, ...)
    get_tokenizer(self)
vllm.entrypoints.openai.chat_completion.protocol.ChatCompletionRequest:
    # a request as vLLM's server has it, for its parsers
    model_copy(self, *, update=None, ...)
    tools
vllm.exceptions.VLLMClientError:
    # what is wrong with a request
    args
vllm.exceptions.VLLMValidationError:
    # which field of a request is wrong
    parameter
vllm.outputs.CompletionOutput:
    # tokens, their log probabilities, and the reason of the finish
    finish_reason logprobs stop_reason text token_ids
vllm.outputs.RequestOutput:
    # what a request got
    finished kv_transfer_params metrics num_cached_tokens outputs request_id
vllm.parser.abstract_parser.Parser:
    # splits the output into thoughts, answer and calls
    parse_delta(self, delta_text, delta_token_ids, request, prompt_token_ids=None, *, finished)
vllm.parser.engine.parser_engine_config.ParserEngineConfig:
    # the table of a parser, from which the markers of phases are derived
    terminals token_id_terminals transitions
vllm.parser.engine.parser_engine_config.ParserState:
    # what a parser reads: thoughts, an answer, a call
    REASONING
vllm.parser.harmony.ChunkResult:
    # the output of gpt-oss by channels
    segments
vllm.parser.harmony.HarmonyParser:
    # reads the output of gpt-oss
    flush(self)
    process_chunk(self, token_ids)
vllm.parser.harmony.Segment:
    # a piece of a channel
    completed_message
vllm.parser.parser_manager.ParserManager:
    # finds parsers by name
    get_parser(tool_parser_name=None, reasoning_parser_name=None, enable_auto_tools=False, ...)
    get_reasoning_parser(reasoning_parser_name)
    get_tool_parser(tool_parser_name=None, enable_auto_tools=False, ...)
vllm.platforms.interface.Platform:
    # CPU or GPU
    is_cpu(self)
vllm.renderers.hf.HfRenderer:
    # the tokenizer that writes prompts
    get_tokenizer(self)
vllm.renderers.mistral.MistralRenderer:
    # writes prompts
    render_messages(self, messages, params)
vllm.renderers.params.ChatParams:
    # options of the chat template
    chat_template_kwargs
vllm.sampling_params.RequestOutputKind:
    # tokens as they come, or all at the end
    DELTA FINAL_ONLY
vllm.sampling_params.SamplingParams:
    # sampling parameters of a request; our own facts travel in `extra_args`
    verify(self, model_config, speculative_config, structured_outputs_config, tokenizer)
    detokenize extra_args frequency_penalty ignore_eos logit_bias logprobs max_tokens min_p
    min_tokens output_kind presence_penalty repetition_penalty seed skip_special_tokens
    stop_token_ids structured_outputs temperature top_k top_p
vllm.sampling_params.StructuredOutputsParams:
    # the structure of an answer, and the grammar of calls that must be made
    grammar json json_object regex structural_tag
vllm.tokenizers.protocol.TokenizerLike:
    # token ids of the markers
    convert_tokens_to_ids(self, tokens)
vllm.tool_parsers.abstract_tool_parser.ToolParser:
    # reads calls
    extract_tool_calls_streaming(self, previous_text, current_text, delta_text,
    previous_token_ids, current_token_ids, delta_token_ids, request)
    get_remaining_unstreamed_args(self)
    engine_based_streaming
vllm.v1.core.block_pool.BlockPool:
    # free KV memory; the measurements take some of it away
    get_num_free_blocks(self)
vllm.v1.core.kv_cache_coordinator.KVCacheCoordinator:
    # the blocks of a request
    get_blocks(self, request_id)
vllm.v1.core.kv_cache_manager.KVCacheManager:
    # KV memory and its reserve
    block_pool coordinator watermark_blocks
vllm.v1.core.sched.interface.PauseState:
    # a paused engine decides nothing
    PAUSED_NEW UNPAUSED
vllm.v1.core.sched.output.CachedRequestData:
    # blocks that running requests got in a step
    new_block_ids num_computed_tokens num_output_tokens req_ids resumed_req_ids
vllm.v1.core.sched.output.NewRequestData:
    # requests that a step admits
    block_ids num_computed_tokens prompt_token_ids req_id sampling_params
vllm.v1.core.sched.output.SchedulerOutput:
    # the outcome of a step
    make_empty()
    finished_req_ids kv_connector_metadata num_scheduled_tokens preempted_req_ids
    scheduled_cached_reqs scheduled_new_reqs total_num_scheduled_tokens
vllm.v1.core.sched.request_queue.PriorityRequestQueue:
    # the queue is ordered anew after each decision
    __init__(self)
    add_request(self, request)
    remove_request(self, request)
    _heap
vllm.v1.core.sched.request_queue.SchedulingPolicy:
    # a decision becomes priorities
    PRIORITY
vllm.v1.core.sched.scheduler.Scheduler:
    # policies decide before a step and statistics follow it; a policy sees queues, memory and
    # slots, and preempts for waiting requests, which vLLM never does; the simulator leaves out
    # what only a model runner would read
    __init__(self, vllm_config, kv_cache_config, structured_output_manager, block_size, ...)
    add_request(self, request)
    finish_requests(self, request_ids, finished_status)
    has_requests(self)
    has_unfinished_requests(self)
    schedule(self, throttle_prefills=False)
    update_from_output(self, scheduler_output, model_runner_output)
    _build_kv_connector_meta(self, connector, scheduler_output)
    _free_blocks(self, request)
    _free_request(self, request, delay_free_blocks=False)
    _make_cached_request_data(self, running_reqs, resumed_reqs, num_scheduled_tokens,
        spec_decode_tokens, req_to_new_blocks)
    _preempt_request(self, request, timestamp, drop_stale_output=False)
    _set_kv_fetch_stage(self, request, stage)
    _update_request_with_output(self, request, new_token_ids, is_stale=False)
    block_size connector current_step deferred_frees deferred_waiting
    finished_recving_kv_req_ids kv_cache_config kv_cache_manager kv_holding_waiting
    max_num_active_reqs max_num_scheduled_tokens num_spec_tokens
    num_waiting_for_streaming_input pause_state policy requests requires_kv_delivery running
    scheduler_config structured_output_manager vllm_config waiting _inflight_prefills _pause_state
vllm.v1.engine.EngineCoreOutput:
    # new tokens of a request; the ticket of one that leaves
    finish_reason kv_transfer_params new_token_ids request_id stop_reason
vllm.v1.engine.EngineCoreOutputs:
    # outputs and statistics of a step
    outputs scheduler_stats
vllm.v1.engine.FinishReason:
    # a request that leaves for another engine has stopped
    STOP
vllm.v1.engine.async_llm.AsyncLLM:
    # an engine in processes of its own
    async abort(self, request_id, internal=False)
    async add_request(self, request_id, prompt, params, ...)
    async generate(self, prompt, sampling_params, request_id, ...)
    async reset_prefix_cache(self, reset_connector=False, ...)
    from_vllm_config(vllm_config, stat_loggers=None, disable_log_stats=False, ...)
    shutdown(self, ...)
    engine_core input_processor output_handler
vllm.v1.engine.core.EngineCore:
    # scheduler and device of an engine
    model_executor scheduler
vllm.v1.engine.core_client.AsyncMPClient:
    # calls methods of an engine core in another process; pauses it
    async call_utility_async(self, method, *args)
    async pause_scheduler_async(self, mode='abort', clear_cache=True)
    async resume_scheduler_async(self)
vllm.v1.engine.core_client.EngineCoreClient:
    # ends an engine
    shutdown(self, ...)
vllm.v1.engine.core_client.InprocClient:
    # the engine core in this process
    engine_core
vllm.v1.engine.input_processor.InputProcessor:
    # structures are checked before, in a process of their own
    structured_outputs_config
vllm.v1.engine.llm_engine.LLMEngine:
    # an engine in this process
    abort_request(self, request_ids, internal=False)
    add_request(self, request_id, prompt, params, ...)
    from_vllm_config(vllm_config, disable_log_stats=False, ...)
    has_unfinished_requests(self)
    reset_prefix_cache(self, reset_connector=False, ...)
    step(self)
    engine_core input_processor
vllm.v1.engine.output_processor.RequestOutputCollector:
    # outputs of a request, as `AsyncLLM` collects them
    get_nowait(self)
    request_id
vllm.v1.executor.abstract.Executor:
    # an emulated device
    check_health(self)
    collective_rpc(self, method, timeout=None, args=(), kwargs=None, non_block=False)
    compile_or_warm_up_model(self)
    determine_available_memory(self)
    execute_model(self, scheduler_output, non_block=False)
    get_kv_cache_specs(self)
    get_kv_connector_handshake_metadata(self)
    get_supported_kv_cache_layouts(self)
    initialize_from_config(self, kv_cache_configs)
    reset_encoder_cache(self)
    reset_mm_cache(self)
    sample_tokens(self, grammar_output, non_block=False)
    set_kv_cache_layout(self, layout_name)
    shutdown(self)
    supports_async_scheduling()
    _init_executor(self)
    cache_config model_config supported_tasks vllm_config
vllm.v1.kv_cache_interface.FullAttentionSpec:
    # KV memory of an emulated or simulated model
    block_size dtype head_size num_kv_heads
vllm.v1.kv_cache_interface.KVCacheConfig:
    # KV memory of an engine
    __init__(self, num_blocks, kv_cache_tensors, kv_cache_groups,
        prefix_cache_retention_interval=None, ...)
    kv_cache_groups kv_cache_tensors num_blocks
vllm.v1.kv_cache_interface.KVCacheGroupSpec:
    # KV memory of a group of layers
    __init__(self, layer_names, kv_cache_spec, is_eagle_group=False, host_resident=False, ...)
    kv_cache_spec layer_names
vllm.v1.kv_cache_interface.KVCacheSpec:
    # KV memory of a layer
    block_size page_size_bytes
vllm.v1.kv_offload.base.CanonicalKVCacheTensor:
    # KV memory that is copied
    tensor
vllm.v1.kv_offload.base.CanonicalKVCaches:
    # KV memory that is copied
    group_data_refs tensors
vllm.v1.kv_offload.base.GPULoadStoreSpec:
    # blocks that are copied
    block_ids block_indices group_sizes
vllm.v1.kv_offload.base.OffloadingWorker:
    # copies on the CPU platform; modelled copies
    __init__(self, *args, ...)
    get_finished(self)
    submit_load(self, job_id, src_spec, dst_spec)
    submit_store(self, job_id, src_spec, dst_spec)
    wait(self, job_ids)
vllm.v1.kv_offload.base.TransferResult:
    # a copy that is done
    __init__(self, job_id, success, transfer_size=None, transfer_time=None)
vllm.v1.kv_offload.cpu.common.CPULoadStoreSpec:
    # places in host memory
    chunk_ids
vllm.v1.kv_offload.cpu.spec.CPUOffloadingSpec:
    # host memory on the CPU platform, which vLLM's own refuses
    __init__(self, config)
    get_worker(self, kv_caches)
    blocks_per_chunk extra_config kv_bytes_per_chunk num_chunks
vllm.v1.kv_offload.factory.OffloadingSpecFactory:
    # KV offload in emulation and simulation
    create_spec(config)
vllm.v1.metrics.loggers.StatLoggerBase:
    # hears of each step of an engine in another process
    __init__(self, vllm_config, engine_index=0)
    log_engine_initialized(self)
    record(self, scheduler_stats, iteration_stats, mm_cache_stats=None, engine_idx=0)
vllm.v1.metrics.stats.RequestStateStats:
    # preemptions of a request
    num_preemptions
vllm.v1.metrics.stats.SchedulerStats:
    # the one field of free integers: statistics by phase travel in it
    num_kv_fetch_reqs_by_stage
vllm.v1.outputs.KVConnectorOutput:
    # KV that has arrived or left
    failed_recving finished_recving finished_sending kv_connector_worker_meta
vllm.v1.outputs.ModelRunnerOutput:
    # tokens of an emulated or simulated step
    with_kv_conn_output_only(kv_connector_output)
    kv_connector_output req_id_to_index req_ids sampled_token_ids
vllm.v1.request.Request:
    # what a request holds and needs; a request sits out a step; when a request can leave; the
    # simulator adds several tokens at once
    __init__(self, request_id, prompt_token_ids, sampling_params, pooling_params, arrival_time=None,
        block_hasher=None, ...)
    is_finished(self)
    update_block_hashes(self)
    all_token_ids arrival_time client_index drop_stale_output is_prefill_chunk
    kv_transfer_params max_tokens next_decode_eligible_step num_computed_tokens num_in_flight_tokens
    num_output_placeholders num_output_tokens num_preemptions num_prompt_tokens
    num_stale_output_tokens num_tokens num_tokens_with_spec output_token_ids priority
    prompt_token_ids request_id sampling_params status structured_output_request
    _all_token_ids _output_token_ids
vllm.v1.request.RequestStatus:
    # where a request stands
    FINISHED_ABORTED FINISHED_LENGTH_CAPPED FINISHED_STOPPED PREEMPTED RUNNING WAITING
    WAITING_FOR_REMOTE_KVS
vllm.v1.sample.logits_processor.interface.LogitsProcessor:
    # forced lengths, thinking budgets, exact sampling
    __init__(self, vllm_config, device, is_pin_memory)
    apply(self, logits)
    is_argmax_invariant(self)
    update_state(self, batch_update)
    validate_params(sampling_params)
vllm.v1.structured_output.StructuredOutputManager:
    # the scheduler's constructor needs one; takes the tokens that a request already has
    __init__(self, vllm_config)
    accept_tokens(self, request, new_token_ids)
vllm.v1.structured_output.backend_types.StructuredOutputGrammar:
    # its calls are bounded
    __init__(self, ...)
    accept_tokens(self, request_id, tokens)
    fill_bitmask(self, bitmask, batch_index)
    is_terminated(self)
    reset(self)
    rollback(self, num_tokens)
    validate_tokens(self, tokens)
vllm.v1.structured_output.backend_xgrammar.XgrammarBackend:
    # tries a structure before its request is queued; knows the bytes of each token
    __init__(self, vllm_config, tokenizer, vocab_size)
vllm.v1.structured_output.request.StructuredOutputRequest:
    # the grammar of a request waits until the known tokens have passed; where its answer begins
    grammar reasoning_ended _grammar
vllm.v1.utils.ConstantList:
    # tokens of a request
    index(self, item, ...)
"""

_MEMBER = re.compile(r"(?:async )?\w+(?:\((?:[^()]|\(\))*\))?")


def _parse(text: str) -> tuple[Touched, ...]:
    entries = []
    for part in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        head, _, rest = part.strip().partition(":\n")
        if head:
            lines = [line.strip() for line in rest.splitlines()]
            why = " ".join(line[2:] for line in lines if line.startswith("# "))
            members = " ".join(line for line in lines if not line.startswith("# "))
            entries.append(Touched(head, why, tuple(_MEMBER.findall(members))))
    return tuple(entries)


IMPORTED = _parse(_IMPORTED)  # by module; without a reason, which the members of a class have
MEMBERS = _parse(_MEMBERS)
