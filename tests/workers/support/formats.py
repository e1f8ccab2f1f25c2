"""Formats of models without an engine: the embedded model's, with other templates and parsers."""

from __future__ import annotations

import copy
import functools
from typing import Any

from vllm.config import VllmConfig
from vllm.renderers.registry import renderer_from_config

from tests.workers.support.harness import MODEL, PACE
from workers.engine.vllm_config import vllm_config
from workers.formats.control import budgets_of
from workers.formats.form import Format, chosen_for
from workers.formats.template import Template
from workers.messages import ChatMessage, Sampling, Submit
from workers.requests.chat_template import ChatRenderer
from workers.settings import WorkerSettings

CONTEXT = 512


def settings(**changes: Any) -> WorkerSettings:
    """Settings of a worker with the embedded model."""
    values: dict[str, Any] = {
        "instance_id": "worker-0",
        "listen": "unix:/nowhere",
        "model": str(MODEL),
        "served_model_name": "tiny",
        "dtype": "float32",
    }
    return WorkerSettings(**(values | changes))


@functools.cache
def config() -> VllmConfig:
    """vLLM's configuration for the embedded model."""
    return vllm_config(settings())


def form_of(template: str | None = None, tokenizer: Any = None, **changes: Any) -> Format:
    """The format of the embedded model.

    :param template: replaces its chat template.
    :param tokenizer: replaces its tokenizer.
    :param changes: settings.
    """
    renderer = renderer_from_config(config())
    if tokenizer is not None:
        renderer.tokenizer = tokenizer
    if template is not None:
        renderer.tokenizer = copy.copy(renderer.tokenizer)
        renderer.tokenizer.chat_template = template
    chosen = settings(**changes)
    written = Template(config(), renderer)
    parsers = chosen_for(chosen, config().model_config, written.tokenizer)
    return Format(parsers, written, budgets_of(chosen.thinking_budgets))


def chat_renderer(template: str | None = None, **changes: Any) -> ChatRenderer:
    """A renderer with a context of `CONTEXT` tokens."""
    return ChatRenderer(form_of(template, **changes), CONTEXT)


def user(content: str) -> ChatMessage:
    """What a user says."""
    return ChatMessage(role="user", content=content)


def submit(*messages: ChatMessage, **fields: Any) -> Submit:
    """A request with these messages."""
    values: dict[str, Any] = {"request_id": "r", "sampling": Sampling(), "pace": PACE}
    return Submit(messages=messages, **(values | fields))
