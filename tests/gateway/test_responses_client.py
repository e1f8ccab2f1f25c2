"""The Responses API in full, by the `openai` package against a server with the embedded model."""

from __future__ import annotations

import time
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from tests.support.server import Server

pytestmark = pytest.mark.engine

MODEL = "tiny-reasoner"
QUESTION: Any = {"role": "user", "content": "What is 348 + 275?"}
AGAIN: Any = {"role": "user", "content": "What is 12 + 30?"}
UNPACED: dict[str, Any] = {"model": MODEL, "temperature": 0, "extra_body": {"pacing": False}}


@pytest.fixture
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def test_references_to_the_items_of_the_turn_before(client: OpenAI) -> None:
    first = client.responses.create(input=[QUESTION], **UNPACED)
    assert "623" in first.output_text
    items: Any = [{"type": "item_reference", "id": item.id} for item in first.output]
    second = client.responses.create(input=[QUESTION, *items, AGAIN], **UNPACED)
    by_hand = client.responses.create(previous_response_id=first.id, input=[AGAIN], **UNPACED)
    assert "42" in second.output_text
    assert second.output_text == by_hand.output_text
    assert second.usage is not None
    assert by_hand.usage is not None
    assert second.usage.input_tokens == by_hand.usage.input_tokens


def test_the_summary_is_what_the_model_thinks(client: OpenAI) -> None:
    plain: Any = client.responses.create(input=[QUESTION], **UNPACED)
    with client.responses.stream(
        input=[QUESTION], reasoning={"summary": "auto"}, **UNPACED
    ) as stream:
        kind = "response.reasoning_summary_text.delta"
        text = "".join(event.to_dict()["delta"] for event in stream if event.type == kind)  # type: ignore[misc]
        response: Any = stream.get_final_response()
    assert text == response.output[0].summary[0].text == plain.output[0].content[0].text
    assert response.output_text == plain.output_text


def test_a_conversation_that_is_too_long_loses_its_beginning(client: OpenAI) -> None:
    turns: list[Any] = [QUESTION, {"role": "assistant", "content": "The sum is 623."}] * 200
    with pytest.raises(BadRequestError, match="context"):
        client.responses.create(input=[*turns, AGAIN], **UNPACED)
    response = client.responses.create(
        input=[*turns, AGAIN], truncation="auto", max_output_tokens=64, **UNPACED
    )
    context: Any = client.models.retrieve(MODEL).to_dict()["max_model_len"]
    turn = 64  # tokens at most, of a question and its answer
    assert response.usage is not None
    assert context - 64 - turn < response.usage.input_tokens <= context - 64
    assert response.usage.output_tokens > 0


def test_encrypted_thoughts_come_back(client: OpenAI) -> None:
    first: Any = client.responses.create(
        input=[QUESTION], store=False, include=["reasoning.encrypted_content"], **UNPACED
    )
    thoughts, message = first.output
    hidden: Any = {
        "type": "reasoning",
        "summary": [],
        "encrypted_content": thoughts.encrypted_content,
    }
    second = client.responses.create(input=[QUESTION, hidden, message, AGAIN], **UNPACED)
    shown = client.responses.create(input=[QUESTION, *first.output, AGAIN], **UNPACED)
    assert second.output_text == shown.output_text
    assert "42" in second.output_text


def test_in_the_background(client: OpenAI) -> None:
    response = client.responses.create(input=[QUESTION], background=True, **UNPACED)
    deadline_s = time.monotonic() + 60
    while response.status in ("queued", "in_progress"):
        assert time.monotonic() < deadline_s
        response = client.responses.retrieve(response.id)
    assert (response.status, "623" in response.output_text) == ("completed", True)
    events = list(client.responses.retrieve(response.id, stream=True, starting_after=4))
    assert events[0].sequence_number == 5
    assert events[-1].type == "response.completed"
    (item,) = client.responses.input_items.list(response.id).data
    assert item.type == "message"
    assert client.responses.cancel(response.id).status == "completed"


def test_a_conversation(client: OpenAI) -> None:
    conversation = client.conversations.create(metadata={"topic": "sums"})
    answers = []
    for question in (QUESTION, AGAIN):
        response = client.responses.create(
            input=[question], conversation=conversation.id, **UNPACED
        )
        answers.append(response.output_text)
    assert ["623" in answers[0], "42" in answers[1]] == [True, True]
    kinds = [item.type for item in client.conversations.items.list(conversation.id, order="asc")]
    assert kinds == ["message", "reasoning", "message"] * 2
    assert client.conversations.delete(conversation.id).deleted
