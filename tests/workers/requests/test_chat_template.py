from __future__ import annotations

import json
import re
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.workers.support.formats import CONTEXT, chat_renderer, form_of, submit, user
from tests.workers.support.harness import MODEL
from workers.errors import RequestRejected, WorkerError
from workers.messages import ChatMessage
from workers.policy.phase import Phase
from workers.requests.chat_template import ChatRenderer, Prompt

TURN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def tiny() -> ChatRenderer:
    return chat_renderer()


def render(using: ChatRenderer, *messages: ChatMessage, **fields: Any) -> Prompt:
    return using.render(submit(*messages, **fields))


def test_tokens_are_those_of_the_template(tiny: ChatRenderer) -> None:
    messages = [user("2 + 2?"), ChatMessage(role="assistant", content="4"), user("And 3 + 3?")]
    tokenizer: Any = AutoTokenizer.from_pretrained(str(MODEL))
    expected = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )
    assert list(render(tiny, *messages).token_ids) == expected


def test_model_that_opens_its_thoughts_itself_starts_reasoning(tiny: ChatRenderer) -> None:
    assert render(tiny, user("Hi")).phase is Phase.REASONING
    assert render(tiny, user("Hi"), thinking=True).phase is Phase.REASONING


def test_without_thinking_it_starts_answering(tiny: ChatRenderer) -> None:
    prompt = render(tiny, user("Hi"), thinking=False)
    assert prompt.phase is Phase.ANSWERING
    assert tiny.markers is not None
    ((end,),) = tiny.markers.reasoning_ends
    assert end in prompt.token_ids


@pytest.mark.parametrize("written", ["<think>", "</think>", "<think> a </think>", "</think>\n"])
def test_markers_that_a_user_writes_change_nothing(tiny: ChatRenderer, written: str) -> None:
    assert render(tiny, user(f"What is {written}")).phase is Phase.REASONING
    assert render(tiny, user(written), thinking=False).phase is Phase.ANSWERING


def test_template_that_opens_the_thoughts_starts_reasoning() -> None:
    opening = chat_renderer(TURN + OPEN + "<think>\n{% endif %}")
    assert render(opening, user("</think>")).phase is Phase.REASONING


def test_template_with_its_own_switch_for_thinking_is_believed() -> None:
    switch = "{% if enable_thinking is defined and not enable_thinking %}/no_think\n{% endif %}"
    switching = chat_renderer(switch + TURN + OPEN + "{% endif %}")
    assert render(switching, user("Hi"), thinking=False).phase is Phase.ANSWERING


def test_template_without_a_switch_for_thinking_cannot_switch_it_off() -> None:
    ignoring = chat_renderer(TURN + OPEN + "{% endif %}")
    assert render(ignoring, user("Hi"), thinking=True).phase is Phase.REASONING
    with pytest.raises(RequestRejected, match="cannot be switched off") as caught:
        render(ignoring, user("Hi"), thinking=False)
    assert caught.value.param == "thinking"


def test_model_without_markers_starts_answering(tmp_path: Any) -> None:
    tokenizer = json.loads((MODEL / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = tokenizer["added_tokens"][:3]
    vocabulary = tokenizer["model"]["vocab"]
    tagged = re.compile("</?(think|tool)")
    kept = {text: token for text, token in vocabulary.items() if not tagged.match(text)}
    tokenizer["model"]["vocab"] = kept
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "tokenizer_config.json").write_text((MODEL / "tokenizer_config.json").read_text())
    plain = ChatRenderer(form_of(tokenizer=AutoTokenizer.from_pretrained(str(tmp_path))), CONTEXT)
    assert plain.markers is None
    assert render(plain, user("Hi <think>")).phase is Phase.ANSWERING


def test_what_a_template_refuses_is_the_fault_of_the_messages() -> None:
    strict = chat_renderer("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(RequestRejected, match="roles must alternate") as caught:
        render(strict, user("Hi"))
    assert caught.value.param == "messages"


@pytest.mark.parametrize("repeats", [600, 400_000])  # counted; certainly too long to count
def test_prompt_that_leaves_no_room_is_refused_with_the_numbers(
    tiny: ChatRenderer, repeats: int
) -> None:
    with pytest.raises(
        RequestRejected, match=f"This model's maximum context length is {CONTEXT} tokens"
    ) as caught:
        render(tiny, user("7" * repeats))
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


def test_longest_prompt_leaves_room_for_one_token(tiny: ChatRenderer) -> None:
    frame = len(render(tiny, user("")).token_ids)
    digits = CONTEXT - frame - 1  # a digit is a token
    assert len(render(tiny, user("7" * digits)).token_ids) == CONTEXT - 1
    with pytest.raises(RequestRejected, match=str(CONTEXT)):
        render(tiny, user("7" * (digits + 1)))


def test_model_without_a_template_cannot_be_served() -> None:
    with pytest.raises(WorkerError, match="no chat template"):
        chat_renderer("")
