"""Every message of the worker link, and the only place where they are encoded and decoded.

The link is one WebSocket per worker (`workers.process` listens, `gateway.routing.worker_link`
dials), over a Unix socket on one machine or TCP between machines. Each WebSocket message is one
JSON object, tagged by ``type``. Order on the link:

    gateway: Hello
    worker:  Welcome, then until the end
             Accepted | Counted | Detokenized | Rejected | Step | Heartbeat | Prefixes | PeerMet |
             PolicySet | OtherLoads
    gateway: Submit | Count | Detokenize | Cancel | SetPace | HandOver | MeetPeer |
             SetPolicy | TellLoad, at any time after
             Welcome

A worker serves several gateways, each on a link of its own. A request belongs to the gateway that
submitted it: only that one gets its tokens, and only that one can cancel it. When a link ends, the
worker cancels the requests of its gateway.

For one request the worker answers `Submit` with exactly one of `Accepted` or `Rejected`; after
`Accepted` its tokens come in `Step` frames, and the last `TokenRun` carries `finish`. Nothing about
a request follows its finish. A `Cancel` for a request that is unknown or finished is ignored.

Times on the link are durations in seconds or counts, never readings of a clock: the two ends may
be on different machines.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

PROTOCOL = 9  # raised with every incompatible change; both ends refuse another one
# The largest frame that a worker takes: a `Submit` with 16 MB of conversation, escaped.
MAX_TO_WORKER_BYTES = 32 * 2**20

FinishReason: TypeAlias = Literal["stop", "length", "cancelled", "error", "handed_over"]
PhaseName: TypeAlias = Literal["reasoning", "answering", "calling"]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    """Base of all messages: immutable, keyword only, tagged by class name.

    The garbage collector need not look at them: what is immutable makes no cycles.
    """


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of all parts of messages."""


# ---- parts ------------------------------------------------------------------------------------


class ToolCall(Value):
    """A call that the model made in an earlier turn."""

    call_id: str
    name: str
    arguments: str  # as the model wrote them: JSON, unless the model made a mistake


class ChatMessage(Value):
    """One turn of the conversation, as the chat template gets it."""

    role: str
    content: str
    reasoning: str | None = None  # of an assistant: its thoughts, for templates that want them
    tool_calls: tuple[ToolCall, ...] = ()  # of an assistant
    tool_call_id: str | None = None  # of a tool: the call that this is the result of
    name: str | None = None


class PlainPrompt(Value):
    """A prompt that is no conversation: the model goes on where it ends."""

    text: str = ""
    token_ids: tuple[int, ...] | None = None  # instead of the text
    special_tokens: bool = True  # whether the tokenizer adds its own, such as a first one


class ToolChoice(Value):
    """Which tools the model may, or must, call."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None  # with "required": this tool, no other
    parallel: bool = True  # whether it may make several calls in one turn


class Structure(Value):
    """The form that the answer must have; it begins after the thoughts."""

    kind: Literal["json_object", "json", "regex", "choice", "grammar", "structural_tag"]
    # A JSON schema, a regular expression, a list of strings, a grammar in EBNF, or a structural tag
    # of xgrammar. The worker makes these itself, for calls of tools: as text, or as an object of
    # ``calls``, such a text, and ``answer``, the structure of what may come instead of them.
    value: Any = None


class Sampling(Value):
    """Sampling parameters; None leaves the model's own default (its generation config)."""

    max_tokens: int | None = None  # None: up to the model's context length
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()  # stop strings, looked for in the answer only
    ignore_eos: bool = False
    thinking_budget: int | None = None  # most reasoning tokens; None: no bound
    min_tokens: int = 0  # before the model may end
    stop_token_ids: tuple[int, ...] = ()
    logit_bias: dict[int, float] | None = None  # by token id
    logprobs: int | None = None  # how many alternatives to report for each token; None: nothing


class ForcedLengths(Value):
    """Exact lengths for load tests, whatever the model would generate.

    ``reasoning_tokens`` counts up to and including the end-of-thinking token. The call is of one
    of the request's own tools; its markers count.
    """

    reasoning_tokens: int
    answer_tokens: int
    call_tokens: int = 0  # after the answer; 0: no call


class Pace(Value):
    """How fast the reader reads; the scheduler computes slack from it."""

    tau_s: float  # seconds per answering token
    paced: bool = True  # False: the reader takes tokens as fast as they come
    paused: bool = False

    @property
    def possible(self) -> bool:
        """Whether it is valid: finite and above 0 seconds per token."""
        return 0.0 < self.tau_s < float("inf")


class PhaseCounts(Value):
    """Requests and memory of one phase on one instance."""

    running: int = 0
    waiting: int = 0
    kv_blocks: int = 0


class DeviceStats(Value):
    """What an emulated device has done since it started; see `workers.emulation.device_clock`."""

    passed_s: float  # since it started
    steps: int
    busy_s: float  # modelled time in which it computed
    starved_s: float  # idle with work: the engine was late with the next step
    late_s: float  # from the end of a step until the engine took its tokens, summed over steps
    stalled_s: float = 0.0  # waited until KV was stored, because other requests got its blocks


class MigrationStats(Value):
    """KV that moves to and from other engines; totals since the engine started."""

    held_blocks: int  # KV blocks that no request holds: they wait for the readers of tickets
    tickets_total: int  # given to requests that left
    expired_total: int  # tickets that were not used in time; their memory came back at the deadline
    read_requests_total: int  # requests that came with a ticket and got their KV
    read_s_total: float  # from asking for it until it was there, as the scheduler sees it, summed
    failed_total: int  # requests whose ticket was of no use: they compute their KV


class PhaseStats(Value):
    """State of the scheduler after a step.

    ``kv_blocks`` of a phase counts the blocks that its requests hold. A block that is shared
    through the prefix cache counts once for each of them, so the phases may add up to more than
    ``kv_blocks_used``.
    """

    reasoning: PhaseCounts
    answering: PhaseCounts
    kv_blocks_used: int  # blocks that requests hold; cached blocks that may be evicted are free
    kv_blocks_total: int
    preemptions_total: int  # since the engine started
    # KV tokens that preempted requests had lost, since the engine started.
    reloaded_tokens_total: int = 0  # brought back from host memory
    recomputed_tokens_total: int = 0
    migration: MigrationStats | None = None  # None: its KV cannot move
    calling: PhaseCounts = PhaseCounts()


class StepStats(PhaseStats, kw_only=True):
    """State of the engine after a step."""

    steps_total: int  # since the engine started
    device: DeviceStats | None = None  # None: the device is real

    @classmethod
    def of(cls, phases: PhaseStats, steps: int, device: DeviceStats | None = None) -> StepStats:
        """The scheduler's state, with what only the engine knows."""
        state = {name: getattr(phases, name) for name in PhaseStats.__struct_fields__}
        return cls(**state, steps_total=steps, device=device)


class Ticket(Value):
    """The right to read the KV of a handed-over request from its engine's memory, once.

    A read that comes too late, or a second one, would get another request's KV without an error.
    """

    engine_id: str  # the engine that holds the memory
    data: str  # for the engines' connectors; opaque to everything else
    tokens: int  # the first N tokens of prompt and output, whose KV is held
    valid_s: float  # from the sending of the message that carries it


class Endpoint(Value):
    """Where other engines find the KV memory of this one."""

    engine_id: str  # new at every start of the process
    host: str
    port: int


class Finish(Value):
    """How a request ended here."""

    reason: FinishReason
    preemptions: int = 0
    cached_tokens: int = 0  # prompt tokens found in the prefix cache
    message: str | None = None  # set with reason "error"
    # With reason "error": the field of `Submit` because of which no instance can serve the request.
    param: str | None = None
    ticket: Ticket | None = None  # only with reason "handed_over"; None: nothing to read
    stop: str | None = None  # the stop string that ended the answer


class Turn(Value):
    """The phase changes: the token at ``at`` and those after it belong to ``phase``."""

    at: int  # index in `TokenRun.token_ids`; may be their number
    phase: PhaseName


def answers_after(boundary: int | None) -> tuple[Turn, ...]:
    """The turn to the answer behind the last token of the thoughts; none for None."""
    return () if boundary is None else (Turn(at=boundary + 1, phase="answering"),)


class Piece(Value):
    """Text that one token completes, of one segment of the output.

    A piece with ``name`` begins a call; the texts of a call's pieces join to its arguments.
    """

    at: int  # index in `TokenRun.token_ids`
    kind: Literal["reasoning", "answer", "call"]
    text: str = ""
    name: str | None = None
    call_id: str | None = None  # with ``name``, where the model's format has ids of its own


class TokenLogprob(Value):
    """Log probability of a token, and of its alternatives."""

    token: str
    logprob: float
    data: tuple[int, ...]  # the bytes of its text
    top: tuple[TokenLogprob, ...] = ()


class TokenRun(Value):
    """Consecutive new tokens of one request.

    ``texts[i]`` is the text that ``token_ids[i]`` completes. It may be empty: for the markers of
    thinking, for special tokens, and where a UTF-8 character is not complete yet. Joining the
    texts gives the request's text exactly.
    """

    request_id: str
    position: int  # index of the first of these tokens in the request's output, from 0
    token_ids: tuple[int, ...]
    texts: tuple[str, ...]
    turns: tuple[Turn, ...] = ()  # where the phase changes, in order
    # Instead of `texts`, when the phases of the tokens do not say which segment each text belongs
    # to, or when a call begins.
    pieces: tuple[Piece, ...] | None = None
    logprobs: tuple[TokenLogprob, ...] = ()  # one for each token, if they were asked for
    finish: Finish | None = None
    # Set in the first run with tokens of a request that came with a ticket: the number of tokens
    # whose KV was read or found in the engine's own prefix cache. 0: the ticket was of no use, and
    # the engine computed all KV that its prefix cache lacked.
    kv_tokens: int | None = None


class Load(Value):
    """What gateways have on one instance, as placement counts it. Memory is in KV blocks."""

    requests: int = 0  # unfinished, and those on their way to the instance
    reasoning: int = 0  # of these, before their phase boundary and not demoted
    fresh_answering: int = 0  # of these, in the first quantum of their answer
    kv_blocks: int = 0  # of all requests, also what is off the device
    kv_blocks_coming: int = 0  # of requests that were handed over and are not in the engine yet
    kv_blocks_reserved: int = 0  # for requests that another instance has yet to hand over
    kv_blocks_expected: int = 0  # that conversations between two turns will bring back
    migrations: int = 0  # from or to this instance, under way
    late_readers: int = 0  # whose QoE is below the SLO

    def plus(self, other: Load) -> Load:
        """Both together."""
        names = self.__struct_fields__
        return Load(**{name: getattr(self, name) + getattr(other, name) for name in names})


# ---- gateway to worker ------------------------------------------------------------------------


class Hello(Message, tag="hello"):
    """First message of a connection. ``token`` must equal the worker's, if it has one.

    A gateway that connects again under its name replaces its earlier connection.
    """

    protocol: int
    gateway: str = ""  # its name, for its life; required
    token: str | None = None


class Submit(Message, tag="submit"):
    """Start a request. ``known_token_ids`` were generated earlier and count as its output."""

    request_id: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling
    pace: Pace
    thinking: bool | None = None  # False asks the chat template to leave thinking out
    known_token_ids: tuple[int, ...] = ()
    forced_lengths: ForcedLengths | None = None
    user: str | None = None  # for fairness between users; None: anonymous
    ticket: Ticket | None = None  # KV of the prompt and the known tokens, on another engine
    tools: tuple[dict[str, Any], ...] = ()  # in the form of chat completions
    tool_choice: ToolChoice = ToolChoice()
    template: dict[str, Any] = {}  # further options of the chat template, by name
    effort: str | None = None  # how much to think, in the words of the client
    structure: Structure | None = None
    # Hashes of the conversation's beginnings, the shortest first; see `Prefixes`.
    prefixes: tuple[int, ...] = ()
    prompt: PlainPrompt | None = None  # instead of messages; what follows it is an answer
    x_request_id: str | None = None  # of the HTTP request that asked for it, for the log


class Count(Message, tag="count"):
    """Count the tokens of a prompt and generate nothing; answered by `Counted` or `Rejected`.

    ``prompt`` is what would be submitted; its ``request_id`` is that of the answer.
    """

    prompt: Submit
    tokens: bool = False  # whether the answer has their ids
    names: bool = False  # whether it has their names in the vocabulary


class Detokenize(Message, tag="detokenize"):
    """Turn tokens into text; answered by `Detokenized` or `Rejected`."""

    request_id: str
    token_ids: tuple[int, ...]


class Cancel(Message, tag="cancel"):
    """Stop a request and free its KV; answered by a `TokenRun` with finish "cancelled"."""

    request_id: str


class SetPace(Message, tag="set_pace"):
    """The reader changed pace, paused or resumed."""

    request_id: str
    pace: Pace


class HandOver(Message, tag="hand_over"):
    """End a request here, to go on elsewhere; ignored for unknown and finished requests.

    Answered by a `TokenRun` with finish "handed_over", or with another one that came first.
    """

    request_id: str


class MeetPeer(Message, tag="meet_peer"):
    """Connect to another engine's KV memory before the first request moves; see `PeerMet`."""

    peer: Endpoint


class SetPolicy(Message, tag="set_policy"):
    """Schedule by another policy, from the next step on; answered by `PolicySet`."""

    policy: str


class TellLoad(Message, tag="tell_load"):
    """What this gateway has on the instance, for the other gateways; see `OtherLoads`.

    Sent when it has changed, and only while other gateways are connected.
    """

    load: Load


# ---- worker to gateway ------------------------------------------------------------------------


class Welcome(Message, tag="welcome"):
    """The engine is loaded and can serve."""

    protocol: int
    instance_id: str
    pid: int
    model: str  # the name that clients use
    max_model_len: int  # tokens of prompt and output together
    block_size: int  # tokens per KV block
    kv_blocks_total: int
    engine: str  # adapter and version, for people
    policy: str  # of its scheduler, at the start of the link
    endpoint: Endpoint | None = None  # None: its KV cannot move


class Accepted(Message, tag="accepted"):
    """The request is in the engine's queue."""

    request_id: str
    prompt_tokens: int
    reasoning: bool  # False: it starts in the answering phase (thinking switched off)


class Counted(Message, tag="counted"):
    """Answer to `Count`."""

    request_id: str
    prompt_tokens: int
    token_ids: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


class Detokenized(Message, tag="detokenized"):
    """Answer to `Detokenize`."""

    request_id: str
    text: str  # with special tokens


class Rejected(Message, tag="rejected"):
    """The request is wrong; nothing of it remains in the worker.

    ``param`` names the offending field of `Submit` (``messages``, ``sampling.max_tokens``, ...).
    """

    request_id: str
    code: str
    message: str
    param: str | None = None


class Step(Message, tag="step"):
    """What one engine step produced, for all requests."""

    sequence: int  # 0, 1, 2, ... on one connection
    runs: tuple[TokenRun, ...]
    stats: StepStats


class Heartbeat(Message, tag="heartbeat"):
    """Sent every second (`WorkerSettings.heartbeat_s`), also when there is nothing to do."""

    since_step_s: float  # since the engine last finished a step, or became busy; 0 when idle
    stats: StepStats


class Prefixes(Message, tag="prefixes"):
    """Which beginnings of conversations have their KV in the prefix cache, as far as is known.

    Sent with the heartbeat if something has changed; the first one on a connection has all.
    """

    tokens: dict[int, int]  # by the hash of `Submit.prefixes`; 0: no longer held


class PeerMet(Message, tag="peer_met"):
    """Answer to `MeetPeer`: whether KV can be read from that engine.

    ``error`` says why not.
    """

    engine_id: str
    error: str | None = None


class PolicySet(Message, tag="policy_set"):
    """Answer to `SetPolicy`; ``error`` says why the policy is still the one before."""

    policy: str  # that was asked for
    error: str | None = None


class OtherLoads(Message, tag="other_loads"):
    """What the other gateways have on this instance, as they told it.

    Sent when it has changed. A gateway that never got one is alone.
    """

    gateways: int  # connected, without the one that this is sent to
    load: Load  # of all of them


ToWorker: TypeAlias = (
    Hello
    | Submit
    | Count
    | Detokenize
    | Cancel
    | SetPace
    | HandOver
    | MeetPeer
    | SetPolicy
    | TellLoad
)
ToGateway: TypeAlias = (
    Welcome
    | Accepted
    | Counted
    | Detokenized
    | Rejected
    | Step
    | Heartbeat
    | Prefixes
    | PeerMet
    | PolicySet
    | OtherLoads
)

_encoder = msgspec.json.Encoder()
_to_worker: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker)
_to_gateway: msgspec.json.Decoder[ToGateway] = msgspec.json.Decoder(ToGateway)


def encode(message: ToWorker | ToGateway) -> bytes:
    """One WebSocket message."""
    return _encoder.encode(message)


def decode_to_worker(data: bytes | str) -> ToWorker:
    """:raises msgspec.ValidationError: naming the path of the offending field."""
    return _to_worker.decode(data)


def decode_to_gateway(data: bytes | str) -> ToGateway:
    """:raises msgspec.ValidationError: naming the path of the offending field."""
    return _to_gateway.decode(data)
