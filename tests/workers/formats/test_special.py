"""Formats outside the table of families: sequences, headers, text; calls that must be made."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.workers.formats.support.families import BY_TEXT, FAMILIES, Family
from tests.workers.formats.support.reading import TOOLS, Reading, outcome, scripts
from tests.workers.formats.support.tokenizers import tokenizer_of_hunyuan, tokenizer_with
from tests.workers.support.formats import submit, user
from workers.errors import RequestRejected
from workers.messages import ChatMessage, Sampling, Structure, ToolChoice
from workers.policy.phase import Phase, PhaseTracker
from workers.requests.output_text import output_text

OPEN, CLOSE, SEP = "<|open|>", "<|close|>", "<|sep|>"
K3 = Family(
    "kimi_k3",
    "kimi_k3",
    start=f"{OPEN}think{SEP}",
    end=f"{CLOSE}think{SEP}",
    markers=(OPEN, CLOSE, SEP),
)


def k3(response: str) -> str:
    return f"{OPEN}response{SEP}{response}{CLOSE}response{SEP}"


def test_markers_of_several_tokens() -> None:
    of = Reading(K3)
    ids = of.ids(f"I add.{K3.end}{k3('Four.')}")
    whole = of.read(ids, ())
    assert whole.text("reasoning") == "Iadd."
    assert whole.text("answer") == "Four."
    end = len(of.ids(f"I add.{K3.end}"))
    assert whole.turns[0] == (end, "answering")
    parser: Any = of.form.composed(of.prompt.request).reasoning_parser
    assert parser.is_reasoning_end_streaming(ids[:end], ids[end - 1 : end])
    assert not parser.is_reasoning_end_streaming(ids[: end - 1], ids[end - 2 : end - 1])
    for cut in range(1, len(ids)):
        assert of.read(ids, (cut,)) == whole


INKLING = (
    "<|message_model|>",
    "<|content_text|>",
    "<|content_invoke_tool_json|>",
    "<|content_invoke_tool_text|>",
    "<|content_tool_error|>",
    "<|content_model_end_sampling|>",
)


def test_headers_of_messages_are_no_text() -> None:
    of = Reading(
        Family(
            "inkling",
            "inkling",
            start="<|content_thinking|>",
            end="<|end_message|>",
            opened=False,
            markers=INKLING,
        )
    )
    call = 'clock<|content_invoke_tool_json|>{"name":"clock","args":{"zone":"UTC"}}<|end_message|>'
    output = (
        "<|content_thinking|>I ask.<|end_message|><|message_model|><|content_text|>Hm."
        "<|end_message|><|message_model|><|content_thinking|>Again.<|end_message|>"
        f"<|message_model|>{call}"
    )
    ids = of.ids(output)
    whole = of.read(ids, range(len(ids)))
    assert whole.text("reasoning") == "Iask.Again."
    assert whole.text("answer") == "Hm."
    assert whole.calls == [("clock", {"zone": "UTC"})]
    assert [phase for _, phase in whole.turns][-2:] == ["calling", "answering"]
    for cut in range(1, len(ids)):
        assert of.read(ids, (cut,)) == whole


@pytest.mark.parametrize(
    ("family", "output"), BY_TEXT, ids=lambda one: getattr(one, "reasoning", "")
)
def test_text_alone_tells_the_phase_and_the_scheduler_is_told(family: Family, output: str) -> None:
    of = Reading(family)
    assert of.form.reading.markers is not None
    assert of.form.reading.markers.text_only
    ids = of.ids(output)
    reader = of.fresh()
    told = [pieces.told for token_id in ids if (pieces := reader.push([token_id])).told]
    assert told[-1] is Phase.ANSWERING
    whole = of.read(ids, range(len(ids)))
    assert whole.text("reasoning") == "Iadd."
    assert whole.text("answer") == "Four."
    for cut in range(1, len(ids)):
        assert of.read(ids, (cut,)).segments == whole.segments


def test_markers_of_hunyuan_are_sequences_of_its_ids() -> None:
    family = Family("hunyuan_a13b", spelled=True, opened=False)
    of = Reading(family, tokenizer_of_hunyuan())
    markers = of.form.reading.markers
    assert markers is not None
    assert not markers.text_only
    ids = of.ids("<think>\nI add.\n</think>\n<answer>\nFour.\n</answer>")
    whole = of.read(ids, range(len(ids)))
    assert whole.text("reasoning") == "Iadd."
    assert whole.text("answer") == "Four."
    end = len(of.ids("<think>\nI add.\n</think>\n<answer>\n"))
    assert whole.turns == [(end, "answering")]
    parser: Any = of.form.composed(of.prompt.request)
    reasoning, content, _ = parser.parse(
        of.tokenizer.decode(ids), of.prompt.request.wire, True, ids
    )
    assert (reasoning, content) == ("I add.", "Four.")
    for cut in range(1, len(ids)):
        assert of.read(ids, (cut,)) == whole


def test_thoughts_that_are_part_of_the_answer_are_no_phase() -> None:
    of = Reading(Family("minimax_m2_append_think"))
    assert of.form.reading.markers is None
    assert of.prompt.phase is Phase.ANSWERING
    ids = of.ids("I add.</think>Four.")
    whole = of.read(ids, range(len(ids)))
    assert whole.segments == [("answer", "<think>I add.</think>Four.")]
    assert whole.turns == []
    for cut in range(1, len(ids)):
        assert of.read(ids, (cut,)) == whole


def test_a_response_template_of_the_tokenizer_tells_the_phase() -> None:
    tokenizer = tokenizer_with(("<think>", "</think>"))
    fields = {"thinking": {"open": "<think>", "close": "</think>"}, "content": {}}
    tokenizer.init_kwargs["response_template"] = {"start_anchor": "assistant: ", "fields": fields}
    of = Reading(Family("hf"), tokenizer)
    ids = of.ids("I add.</think>Four.")
    reader = of.fresh()
    told = [pieces.told for token_id in ids if (pieces := reader.push([token_id])).told]
    assert told == [Phase.ANSWERING]
    whole = of.read(ids, range(len(ids)))
    assert whole.segments == [("reasoning", "I add."), ("answer", "Four.")]
    for cut in range(1, len(ids)):
        assert of.read(ids, (cut,)).segments == whole.segments


def test_a_request_without_tools_makes_no_calls() -> None:
    of = Reading(FAMILIES[10])
    assert of.family.tool == "qwen3_xml"
    request = submit(user("Hi"))
    prompt = of.renderer.render(request)
    ids = of.ids(f"I add.</think>{of.family.call}")
    read = outcome(output_text(of.renderer, prompt, request), ids, range(len(ids)))
    assert [phase for _, phase in read.turns] == ["answering"]
    assert prompt.request.markers == of.form.reading.markers.without_calls  # type: ignore[union-attr]
    assert not prompt.request.tools  # which tells the scheduler
    assert "<function=clock>" in read.text("answer")


def test_only_one_call_where_calls_may_not_be_parallel() -> None:
    of = Reading(FAMILIES[10])
    request = submit(user("Hi"), tools=TOOLS, tool_choice=ToolChoice(parallel=False))
    prompt = of.renderer.render(request)
    reader = output_text(of.renderer, prompt, request)
    first = of.ids(f"I ask.</think>{of.family.call}")
    ids = first + of.ids(of.family.call)
    stopped_at = next(at for at, token_id in enumerate(ids) if reader.push([token_id]).stopped)
    assert stopped_at > len(first)
    again = output_text(of.renderer, prompt, request)
    pieces = again.push(ids)
    assert pieces.stopped
    assert pieces.tokens == stopped_at + 1
    assert sum(piece.name is not None for piece in pieces.pieces or ()) == 1


def test_what_vllm_cannot_read_as_a_call_is_text_of_the_answer() -> None:
    of = Reading(FAMILIES[10])
    ids = of.ids("I ask.</think><tool_call>\nno call at all\n</tool_call>Well.")
    for cuts in ((), range(len(ids))):
        read = of.read(ids, cuts)
        assert read.calls == []
        assert "nocallatall" in read.text("answer")
        assert read.text("answer").endswith("Well.")


def test_arguments_that_are_no_json_are_passed_on() -> None:
    of = Reading(next(f for f in FAMILIES if f.tool == "kimi_k2"))
    call = of.family.call.replace('{"zone": "UTC"}', '{"zone": UTC')
    read = of.read(of.ids(f"I ask.</think>{call}"), ())
    (text,) = [text for kind, text in read.segments if kind == "call clock"]
    assert text == '{"zone": UTC'


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("clock", '{"zone": "UTC"}'),
        (None, '[{"name": "clock", "parameters": {"zone": "UTC"}}]'),
    ],
)
def test_calls_that_the_grammar_forces(name: str | None, answer: str) -> None:
    of = Reading(Family("deepseek_r1", "pythonic"))
    request = submit(user("Hi"), tools=TOOLS, tool_choice=ToolChoice(mode="required", name=name))
    prompt = of.renderer.render(request)
    assert prompt.request.forced == (name or "")
    assert prompt.request.structure is not None
    assert prompt.request.structure.kind == "json"
    ids = of.ids(f"I ask.</think>{answer}")
    whole = outcome(output_text(of.renderer, prompt, request), ids, ())
    assert whole.calls == [("clock", {"zone": "UTC"})]
    assert whole.text("reasoning") == "Iask."
    assert whole.text("answer") == ""
    assert [phase for _, phase in whole.turns] == ["calling"]
    stepwise = outcome(output_text(of.renderer, prompt, request), ids, range(len(ids)))
    assert stepwise.calls == whole.calls
    assert stepwise.turns == whole.turns


def test_native_calls_that_are_forced_have_a_grammar_of_their_format() -> None:
    of = Reading(FAMILIES[10])
    request = submit(user("Hi"), tools=TOOLS, tool_choice=ToolChoice(mode="required"))
    prompt = of.renderer.render(request)
    assert prompt.request.forced is None
    assert prompt.request.structure is not None
    assert prompt.request.structure.kind == "structural_tag"


FORM = Structure(kind="json", value={"type": "string", "pattern": "(?=a)b"})


def with_parameters(strict: bool) -> tuple[dict[str, Any], ...]:
    """A tool whose parameters have no grammar, which is found out in another process."""
    function = {**TOOLS[0]["function"], "strict": strict, "parameters": FORM.value}  # type: ignore[dict-item]
    return ({"type": "function", "function": function},)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("form", [None, FORM])
def test_no_schema_of_a_client_is_compiled_in_this_process(
    strict: bool, form: Structure | None
) -> None:
    """A hostile one could crash it."""
    request = submit(user("Hi"), tools=with_parameters(strict), structure=form)
    structure = Reading(FAMILIES[10]).renderer.render(request).request.structure
    assert (structure is not None) == (strict or form is not None)
    assert structure is None or structure.kind == "structural_tag"


@pytest.mark.parametrize("strict", [True, False])
def test_beside_tools_comes_a_call_or_an_answer_of_the_form(strict: bool) -> None:
    tools = tuple({**one, "function": {**one["function"], "strict": strict}} for one in TOOLS)  # type: ignore[dict-item]
    request = submit(user("Hi"), tools=tools, structure=FORM)
    structure = Reading(FAMILIES[10]).renderer.render(request).request.structure
    assert structure is not None
    assert structure.value["answer"] == {"kind": "json", "value": FORM.value}
    assert "clock" in structure.value["calls"]
    alone = msgspec.structs.replace(request, tool_choice=ToolChoice(mode="none"))
    assert Reading(FAMILIES[10]).renderer.render(alone).request.structure == FORM


def test_where_calls_have_no_grammar_an_answer_beside_tools_can_have_no_form() -> None:
    of = Reading(Family("deepseek_r1", "pythonic"))
    with pytest.raises(RequestRejected, match="no grammar for its calls") as caught:
        of.renderer.render(submit(user("Hi"), tools=TOOLS, structure=FORM))
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "structure")


GEMMA = next(one for one in FAMILIES if one.tool == "gemma4")


def test_a_call_that_no_grammar_can_force_is_refused() -> None:
    request = submit(user("Hi"), tools=TOOLS, tool_choice=ToolChoice(mode="required"))
    with pytest.raises(RequestRejected, match="no grammar for its calls") as caught:
        Reading(GEMMA).renderer.render(request)
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "tool_choice")


def test_gemma_sees_the_thoughts_since_the_user_spoke_last() -> None:
    def thought(text: str) -> ChatMessage:
        return ChatMessage(role="assistant", content="", reasoning=text)

    request = submit(user("Hi"), thought("a"), user("So?"), thought("b"), thought("c"))
    written = Reading(GEMMA).form.request(request).messages
    assert [one.reasoning for one in written] == [None, None, None, "b", "c"]


def test_stop_strings_are_looked_for_in_answers_only() -> None:
    of = Reading(FAMILIES[10])
    for name in ("two phases", "call in the thoughts"):
        ids = of.ids(scripts(of.family)[name])
        request = submit(user("Hi"), tools=TOOLS, sampling=Sampling(stop=("add", "UTC")))
        read = outcome(output_text(of.renderer, of.prompt, request), ids, range(len(ids)))
        assert read == of.read(ids, range(len(ids)))


@pytest.mark.parametrize("tool", ["qwen3_xml", "gemma4"])
def test_stop_strings_are_looked_for_after_the_least_tokens(tool: str) -> None:
    """As in vLLM; whether ids or a parser split the text."""
    of = Reading(next(one for one in FAMILIES if one.tool == tool))
    opening = "" if of.family.opened else of.family.start
    begin = of.ids(f"{opening}I add.{of.family.end}Four.")
    ids = begin + of.ids("Five. Four. Six.")
    for least, first in ((0, True), (len(begin) - len(of.ids("Four.")), True), (len(begin), False)):
        sampling = Sampling(stop=("Four",), min_tokens=least)
        request = submit(user("Hi"), tools=TOOLS, sampling=sampling, template=of.family.options)
        at_once = output_text(of.renderer, of.prompt, request).push(ids)
        reader = output_text(of.renderer, of.prompt, request)
        stopped = next(at for at, token_id in enumerate(ids, 1) if reader.push([token_id]).stopped)
        assert (at_once.stopped, at_once.tokens, reader.stop) == (True, stopped, "Four")
        assert (stopped <= len(begin)) == first


def test_phases_of_the_scheduler_are_those_of_the_stream() -> None:
    for family in FAMILIES:
        of = Reading(family)
        for name, text in scripts(family).items():
            ids = of.ids(text)
            tracker = PhaseTracker(of.form.reading.markers, of.prompt.phase)
            turns = [(at, phase.value) for at, phase in tracker.feed(ids)]
            if of.prompt.request.calls or not of.form.reading.calls:
                assert of.read(ids, ()).turns == turns, (family, name)
