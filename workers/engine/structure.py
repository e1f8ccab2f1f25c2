"""The form of an answer: from the link's `Structure` to vLLM's, and whether it can be compiled.

A structure is compiled once before its request is queued, on trial: what cannot be compiled, or
takes too long, is refused before anything is generated. The engine compiles it again for its own
use, in a thread of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy
import structlog
from vllm.config import StructuredOutputsConfig, VllmConfig
from vllm.exceptions import VLLMClientError
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar
from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend
from vllm.v1.structured_output.request import get_structured_output_key
from vllm.v1.structured_output.utils import choice_as_grammar

from workers.emulation.executor import CONFIG_KEY as EMULATOR_KEY
from workers.engine.json_schema import Schema, overlooked, without_control_characters
from workers.engine.trial import HostGone, Outcome, TrialHost
from workers.errors import RequestRejected
from workers.messages import Structure
from workers.policy.phase import Phase
from workers.scheduler.bounded_grammar import CALL_S, SPARE_S, TOKEN_S

_log = structlog.get_logger()

MAX_BYTES = 64 * 1024  # of the structure as JSON
MAX_CHOICES = 1024
COMPILE_S = 5.0  # of a processor, for one structure to compile
QUICK_S = 0.5  # the same, for most structures
QUICK_TRIALS = 2  # at one time; of slower ones there is one
TRIED_TOKENS = 100  # that are chosen by a structure on trial
MAX_FOUND = 1024  # structures of which the result is remembered
_BACKEND = "xgrammar"

_ANY_JSON = Structure(kind="json_object")
_PARAM = "structure"
_VALUE = "structure.value"


def config() -> StructuredOutputsConfig:
    """vLLM's settings.

    One backend for all: else the first structure of an engine would decide which one the later
    ones get, and an answer could go on under another one. JSON without white space: models that
    have begun with white space may write nothing else.
    """
    return StructuredOutputsConfig(backend=_BACKEND, disable_any_whitespace=True)


def structured_outputs(structure: Structure) -> StructuredOutputsParams:
    """vLLM's form, as after vLLM's check; :raises RequestRejected: naming ``structure.value``."""
    params = _params(structure)
    params._backend = _BACKEND
    return params


def trust_structures(processor: InputProcessor) -> None:
    """Have vLLM not check structures again: it would do so between two steps of the engine."""
    processor.structured_outputs_config = None


def _params(structure: Structure) -> StructuredOutputsParams:
    kind, value = structure.kind, structure.value
    if kind == "structural_tag":  # of the worker itself, for calls of tools
        return StructuredOutputsParams(
            structural_tag=value if isinstance(value, str) else _either(**value)
        )
    size = len(msgspec.json.encode(value))
    if size > MAX_BYTES:
        raise _wrong(f"a structure has at most {MAX_BYTES} bytes, got {size}")
    if kind == "json_object":
        return StructuredOutputsParams(json_object=True)
    if kind == "json":
        if isinstance(value, bool):
            value = {} if value else {"not": {}}
        if not isinstance(value, dict):
            raise _wrong("a JSON schema must be an object")
        # As text: vLLM would take an empty object for no schema at all.
        text = msgspec.json.encode(_json_schema(value)).decode()
        return StructuredOutputsParams(json=text)
    if kind == "choice":
        words = value if isinstance(value, list | tuple) else []
        if not words or not all(isinstance(word, str) and word for word in words):
            raise _wrong("choices must be a list of strings that are not empty")
        if len(words) > MAX_CHOICES:
            raise _wrong(f"there may be at most {MAX_CHOICES} choices, got {len(words)}")
        return StructuredOutputsParams(grammar=choice_as_grammar(list(words)))
    if not isinstance(value, str) or not value:
        raise _wrong(f"a {kind} must be a string that is not empty")
    if kind == "regex":
        return StructuredOutputsParams(regex=value)
    return StructuredOutputsParams(grammar=value)


def _either(calls: str, answer: dict[str, Any]) -> str:
    """A structural tag for calls, or an answer of a structure."""
    tag = json.loads(calls)
    form = _format(msgspec.convert(answer, Structure))
    return json.dumps(tag | {"format": {"type": "or", "elements": [tag["format"], form]}})


def _format(structure: Structure) -> dict[str, Any]:
    """A structure as a part of a structural tag."""
    params, value = _params(structure), structure.value
    match structure.kind:
        case "json_object" | "json":
            schema = {"type": "object"} if params.json is None else json.loads(str(params.json))
            # xgrammar takes no 0 here.
            return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 1}
        case "choice":
            words = [{"type": "const_string", "value": word} for word in value]
            return {"type": "or", "elements": words}
        case "regex":
            return {"type": "regex", "pattern": value}
        case _:
            return {"type": "grammar", "grammar": value}


def _json_schema(value: Schema) -> Schema:
    try:
        problem = overlooked(value)
        if problem is not None:
            raise _wrong(f"the JSON schema cannot be followed: {problem}")
        return without_control_characters(value)
    except (AttributeError, TypeError):
        raise _wrong("a keyword of the JSON schema has a value of a wrong kind") from None
    except RecursionError:
        raise _wrong("the JSON schema is nested too deeply") from None


class StructureCheck:
    """Compiles structures on trial, before their requests are queued."""

    def __init__(self, config: VllmConfig) -> None:
        """Must be made before the engine is loaded; see `workers.engine.trial`."""
        self._config = config
        # No grammar binds the output of an emulated engine, which a script writes.
        emulated = EMULATOR_KEY in config.additional_config
        self._may_think = emulated or bool(config.structured_outputs_config.reasoning_parser)
        self._lock = threading.Lock()
        self._backend: XgrammarBackend | None = None  # made when it is needed
        self._vocabulary: Sequence[bytes] | None = None
        # Libraries are imported, and tokens decoded, before the first trial.
        self._host = TrialHost(lambda: self._compile(_ANY_JSON), self._compile)
        # What compiles quickly never waits for what does not.
        self._lanes = (
            (QUICK_S, asyncio.Semaphore(QUICK_TRIALS)),
            (COMPILE_S, asyncio.Semaphore(1)),
        )
        # What was found out about the last structures, by digest: agents send the same ones again.
        self._found: OrderedDict[bytes, RequestRejected | None] = OrderedDict()

    async def check(self, structure: Structure, began: Phase) -> None:
        """Compile a structure; takes `COMPILE_S` of a processor at most.

        :param began: phase of the first token of the output.
        :raises RequestRejected: naming ``structure`` or ``structure.value``.
        """
        if began is Phase.REASONING and not self._may_think:
            raise RequestRejected(
                "unsupported_value",
                "the answer of this model can have no structure while it thinks: no reasoning "
                "parser is set, so the structure would bind its thoughts",
                _PARAM,
            )
        structured_outputs(structure)
        digest = hashlib.blake2b(msgspec.json.encode(structure), digest_size=16).digest()
        if digest in self._found:
            self._found.move_to_end(digest)
        else:
            self._found[digest] = await self._tried(structure)
            while len(self._found) > MAX_FOUND:
                self._found.popitem(last=False)
        found = self._found[digest]
        if found is not None:
            raise RequestRejected(found.code, found.message, found.param)

    async def _tried(self, structure: Structure) -> RequestRejected | None:
        """Try a structure, first for a short time.

        :return: the reason if it is wrong.
        :raises RequestRejected: it cannot be tried.
        """
        outcome = Outcome.LATE
        for cpu_s, lane in self._lanes:
            async with lane:
                try:
                    outcome = await self._host.run(structure, cpu_s)
                except RequestRejected as rejection:
                    return rejection
                except HostGone:
                    _log.error("structures_not_tried", reason="the process for it has ended")
                    raise RequestRejected(
                        "internal_error", "structures cannot be tried now", _PARAM
                    ) from None
            if outcome is not Outcome.LATE:
                break
        if outcome is Outcome.RIGHT:
            return None
        _log.warning("structure_refused", kind=structure.kind, outcome=outcome.value)
        if outcome is Outcome.LATE:
            return _wrong(f"it takes longer than {COMPILE_S:.0f} s to compile")
        return _wrong("it cannot be compiled: it is too large, or nested too deeply")

    def vocabulary(self) -> Sequence[bytes]:
        """The text of every token id as bytes; takes seconds once, in any thread."""
        with self._lock:
            if self._vocabulary is None:
                some = get_structured_output_key(StructuredOutputsParams(json_object=True))
                grammar = self._get_backend().compile_grammar(*some)
                self._vocabulary = grammar.ctx.tokenizer_info.decoded_vocab
            return self._vocabulary

    def close(self) -> None:
        """End the process for the trials."""
        self._host.close()

    def _get_backend(self) -> XgrammarBackend:
        if self._backend is None:
            model = self._config.model_config
            self._backend = XgrammarBackend(
                self._config,
                tokenizer=cached_tokenizer_from_config(model),
                vocab_size=model.get_vocab_size(),
            )
        return self._backend

    def _compile(self, structure: Structure) -> None:
        """Compile a structure, in a process that may end over it.

        :raises RequestRejected: it cannot be compiled.
        """
        model = self._config.model_config
        try:
            params = structured_outputs(structure)
            # vLLM's own check of a request; it names what its grammars do not support.
            SamplingParams(structured_outputs=params).verify(
                model,
                None,
                self._config.structured_outputs_config,
                cached_tokenizer_from_config(model),
            )
            backend = self._get_backend()
            grammar = backend.compile_grammar(*get_structured_output_key(params))
            ends = frozenset(grammar.ctx.tokenizer_info.stop_token_ids)
            _follow(grammar, backend.allocate_token_bitmask(1), ends)
        except RequestRejected:
            raise
        except Exception as error:
            raise _wrong(f"it cannot be compiled: {_reason(error)}") from error


def _follow(grammar: StructuredOutputGrammar, mask: Any, ends: frozenset[int]) -> None:
    """Choose tokens by a grammar at random, and the end only where nothing else may follow.

    :param ends: tokens that end an output.
    :raises RequestRejected: neither may follow, or that takes so long that a request would be ended
        for it.
    """
    rng = random.Random(0)
    left_s = SPARE_S / 2
    for _ in range(TRIED_TOKENS):
        began_s = time.process_time()
        grammar.fill_bitmask(mask, 0)
        filled_s = time.process_time() - began_s
        allowed = numpy.unpackbits(mask.numpy().view(numpy.uint8), bitorder="little").nonzero()[0]
        if not allowed.size:
            raise _wrong("no text fits it, or one that begins to fit cannot go on")
        going_on = [token for token in allowed.tolist() if token not in ends]
        if not going_on:
            return
        began_s = time.process_time()
        taken = grammar.accept_tokens("trial", [rng.choice(going_on)])
        taken_s = time.process_time() - began_s
        left_s = min(SPARE_S / 2, left_s + 2 * TOKEN_S - filled_s - taken_s)
        if max(filled_s, taken_s) > CALL_S or left_s < 0:
            raise _wrong("it is too costly to follow: it can read the same text in too many ways")
        if not taken or grammar.is_terminated():
            return


def _reason(error: Exception) -> str:
    """The error's text; those of the libraries are about the structure, which is the client's."""
    text = error.args[0] if isinstance(error, VLLMClientError) and error.args else error
    return f"{text}"[:500]


def _wrong(message: str) -> RequestRejected:
    return RequestRejected("invalid_value", message, _VALUE)


def reject_unstructured(forced: bool, structure: Structure | None) -> None:
    """:raises RequestRejected: if lengths are forced, which no grammar would survive."""
    if forced and structure is not None:
        raise RequestRejected(
            "invalid_value", "forced lengths and a structure exclude each other", _PARAM
        )
