"""Which parsers a model gets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager

from tests.workers.formats.support.tokenizers import tokenizer_with
from workers.formats.choose import ParserNames, UnknownParser, choose
from workers.formats.known import BY_VOCABULARY, KNOWN


def names(
    architecture: str,
    tokens: tuple[str, ...] = (),
    template: str = "",
    reasoning: str = "auto",
    tool: str = "auto",
) -> ParserNames:
    tokenizer = tokenizer_with(tokens)
    tokenizer.chat_template = template
    model: Any = SimpleNamespace(architectures=[architecture])
    return choose(reasoning, tool, model, tokenizer)


THINK = ("<think>", "</think>")


@pytest.mark.parametrize(
    ("architecture", "tokens", "template", "expected"),
    [
        ("Qwen3ForCausalLM", THINK, "<tool_call>", ("qwen3", "qwen3_json")),
        ("Qwen3NextForCausalLM", THINK, "<function=", ("qwen3", "qwen3_xml")),
        ("Qwen3ForCausalLM", (), "<tool_call>", (None, "hermes")),
        ("DeepseekV3ForCausalLM", THINK, "<think>\\n", ("deepseek_r1", "deepseek_v3")),
        ("DeepseekV3ForCausalLM", THINK, "thinking", ("deepseek_v3", "deepseek_v31")),
        ("DeepseekV3ForCausalLM", (), "", (None, "deepseek_v3")),
        (
            "DeepseekV3ForCausalLM",
            (*THINK, "<|tool_calls_section_begin|>"),
            "",
            ("kimi_k2", "kimi_k2"),
        ),
        ("DeepseekV32ForCausalLM", THINK, "", ("deepseek_v3", "deepseek_v32")),
        ("Glm4MoeForCausalLM", THINK, "", ("glm45", "glm45")),
        ("GptOssForCausalLM", (), "", ("openai_gptoss", "openai")),
        ("Gemma4ForConditionalGeneration", ("<|channel>",), "", ("gemma4", "gemma4")),
        ("MistralForCausalLM", ("[THINK]",), "", ("mistral", "mistral")),
        ("MistralForCausalLM", ("[TOOL_CALLS]",), "", (None, "mistral")),
        ("SeedOssForCausalLM", (), "", ("seed_oss", "seed_oss")),
        ("NewForCausalLM", THINK, "<function=", ("qwen3", "qwen3_xml")),
        ("NewForCausalLM", THINK, "", ("deepseek_r1", None)),
        ("NewForCausalLM", ("</think>",), "", (None, None)),
        ("NewForCausalLM", (), "", (None, None)),
    ],
)
def test_automatic(
    architecture: str,
    tokens: tuple[str, ...],
    template: str,
    expected: tuple[str | None, str | None],
) -> None:
    chosen = names(architecture, tokens, template)
    assert (chosen.reasoning, chosen.tool) == expected


def test_every_name_of_the_table_is_registered() -> None:
    for known in (*KNOWN, *BY_VOCABULARY):
        assert known.reasoning in {None, *ReasoningParserManager.list_registered()}
        assert known.tool in {None, *ToolParserManager.list_registered()}


def test_names_and_none() -> None:
    chosen = names("Qwen3ForCausalLM", THINK, reasoning="glm45", tool="none")
    assert (chosen.reasoning, chosen.tool) == ("glm45", None)
    with pytest.raises(UnknownParser, match=r"model.tool_parser: vLLM registers no parser 'qwen'"):
        names("Qwen3ForCausalLM", THINK, tool="qwen")
    with pytest.raises(UnknownParser, match="goes with no other"):
        names("Qwen3ForCausalLM", THINK, reasoning="hf", tool="hermes")


PLUGIN = """
from vllm.reasoning import ReasoningParserManager
from vllm.reasoning.deepseek_r1_reasoning_parser import DeepSeekR1ReasoningParser


@ReasoningParserManager.register_module("{name}")
class Own(DeepSeekR1ReasoningParser):
    pass
"""


def test_plugin_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in ("lazy_parsers", "reasoning_parsers"):
        kept = dict(getattr(ReasoningParserManager, registry))
        monkeypatch.setattr(ReasoningParserManager, registry, kept)
    plugin = tmp_path / "own.py"
    plugin.write_text(PLUGIN.format(name="own_one"))
    assert names("Qwen3ForCausalLM", THINK, reasoning=str(plugin)).reasoning == "own_one"
    assert names("Qwen3ForCausalLM", THINK, reasoning=f"{plugin}:own_one").reasoning == "own_one"
    with pytest.raises(UnknownParser, match="no parser 'other'"):
        names("Qwen3ForCausalLM", THINK, reasoning=f"{plugin}:other")
    plugin.write_text("raise OSError('no licence')")
    with pytest.raises(UnknownParser, match="no licence"):
        names("Qwen3ForCausalLM", THINK, reasoning=str(plugin))
    with pytest.raises(UnknownParser, match="is no file"):
        names("Qwen3ForCausalLM", THINK, reasoning=str(tmp_path / "none.py"))
