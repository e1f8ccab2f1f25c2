"""What ``pascal check`` says about a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.config import Config
from gateway.config.workers import ModelConfig
from gateway.launchers.preflight import PreflightError, describe_model
from workers.describe import layer_kinds


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({}, ("attention",)),
        ({"layer_types": ["full_attention"] * 2}, ("full_attention",)),
        ({"layer_types": ["a", "b", "a"]}, ("a", "b")),
        ({"hybrid": True}, ("attention", "state")),
        ({"encoder": True}, ("attention", "cross attention")),
    ],
)
def test_kinds_of_layers(fields: dict[str, Any], kinds: tuple[str, ...]) -> None:
    text = SimpleNamespace(**{k: v for k, v in fields.items() if k == "layer_types"})
    model: Any = SimpleNamespace(
        is_hybrid=fields.get("hybrid", False),
        is_encoder_decoder=fields.get("encoder", False),
        hf_text_config=text,
    )
    assert layer_kinds(model) == kinds


def test_the_embedded_model_is_described() -> None:
    lines = describe_model(Config())
    assert lines[0].startswith("parsers: reasoning qwen3, tools ")
    assert any(line.startswith("thinking: yes") for line in lines)


@pytest.mark.slow
def test_a_parser_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(PreflightError, match=r"model.tool_parser: vLLM registers no parser 'foo'"):
        describe_model(Config(model=ModelConfig(tool_parser="foo")))
