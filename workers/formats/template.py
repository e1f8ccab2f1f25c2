"""Writes conversations as prompts, through the renderers of vLLM.

Most models have a chat template; some have a renderer of their own in vLLM, and gpt-oss has
Harmony. Knows no phases and no budget of tokens.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from vllm.config import VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.renderers import BaseRenderer, ChatParams
from vllm.renderers.hf import HfRenderer, resolve_chat_template
from vllm.renderers.mistral import MistralRenderer
from vllm.renderers.registry import renderer_from_config

from workers.errors import RequestRejected, WorkerError
from workers.formats import harmony
from workers.formats.tokenizer import Tokenizer
from workers.messages import ChatMessage

# What the worker itself decides; a client that sets them would change more than the template.
RESERVED = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "messages",
        "padding",
        "return_dict",
        "tokenize",
        "tools",
        "truncation",
    }
)
_MISTRALS_ID = re.compile(r"[a-zA-Z0-9]{9}")
_FAULTS = (
    jinja2.TemplateError,
    VLLMValidationError,
    TypeError,
    ValueError,
    LookupError,
    RecursionError,
)


class Template:
    """How one model's prompts are written."""

    def __init__(self, config: VllmConfig, renderer: BaseRenderer[Any] | None = None) -> None:
        """:raises WorkerError: the model has no chat template and no renderer of its own."""
        self.harmony = config.model_config.hf_config.model_type == "gpt_oss"
        self._renderer = renderer or renderer_from_config(config)
        self.model = config.model_config
        self.tokenizer: Tokenizer = self._renderer.get_tokenizer()
        if self.harmony:
            harmony.provide_vocabulary(self.tokenizer)
        self._by_template = isinstance(self._renderer, HfRenderer)
        if self._by_template and not self.harmony and not self._source(None):
            raise WorkerError("the model has no chat template")

    @property
    def marks_generation(self) -> bool:
        """Whether a prompt can be written without what begins the assistant's turn."""
        return self._by_template and not self.harmony

    def variables(self) -> frozenset[str] | None:
        """The options that the template reads, by name; None: there is no template to ask."""
        if not self.marks_generation:
            return None
        names: set[str] = set()
        for tools in (None, [_TOOL]):
            names |= _undeclared(self._source(tools) or "")
        return frozenset(names)

    def _source(self, tools: list[dict[str, Any]] | None) -> str | None:
        tokenizer: Any = self.tokenizer
        source: str | None = resolve_chat_template(tokenizer, None, tools, model_config=self.model)
        return source

    def write(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Mapping[str, Any]] = (),
        options: Mapping[str, Any] | None = None,
        *,
        generation: bool = True,
    ) -> str | list[int]:
        """The prompt: as text, or as token ids by renderers that make them at once.

        :param options: further options of the template.
        :param generation: whether the assistant's turn begins at the end.
        :raises RequestRejected: the template refuses them; names ``messages``.
        """
        given = [as_message(message) for message in messages]
        if isinstance(self._renderer, MistralRenderer):
            given = [_with_mistrals_ids(message) for message in given]
        try:
            if self.harmony:
                return harmony.prompt(given, tools, dict(options or {}).get("reasoning_effort"))
            chosen: dict[str, Any] = dict(options or {}) | {
                "tools": [dict(tool) for tool in tools] or None,
                "add_generation_prompt": generation,
                "tokenize": isinstance(self._renderer, MistralRenderer),
            }
            wanted = {name: value for name, value in chosen.items() if value is not None}
            parameters: Any = ChatParams(chat_template_kwargs=wanted)
            _, prompt = self._renderer.render_messages(given, parameters)
        except _FAULTS as error:
            message = f"the model's chat template: {error}"
            raise RequestRejected("invalid_value", message, "messages") from error
        made: Any = prompt
        written: str | list[int] = made.get("prompt_token_ids") or made["prompt"]
        return written


# To ask a template whether it knows tools.
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "The time",
        "parameters": {"type": "object", "properties": {}},
    },
}


def as_message(message: ChatMessage) -> Any:
    """A message in the form of chat completions."""
    form: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        form["reasoning"] = message.reasoning
    if message.tool_calls:
        form["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or json.dumps({})},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        form["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        form["name"] = message.name
    return form


def _with_mistrals_ids(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose ids of calls have the only form that mistral-common takes."""
    for call in message.get("tool_calls", ()):
        call["id"] = _mistrals_id(call["id"])
    if "tool_call_id" in message:
        message["tool_call_id"] = _mistrals_id(message["tool_call_id"])
    return message


def _mistrals_id(call_id: str) -> str:
    if _MISTRALS_ID.fullmatch(call_id):
        return call_id
    return hashlib.blake2b(call_id.encode(), digest_size=5).hexdigest()[:9]


def _undeclared(source: str) -> set[str]:
    from jinja2 import meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    extensions = ["jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(extensions=extensions)
    try:
        return set(meta.find_undeclared_variables(environment.parse(source)))
    except jinja2.TemplateError:
        return set()
