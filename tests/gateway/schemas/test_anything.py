"""Whatever a client sends becomes a request, or an error that names a field."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import orjson
import pytest

from gateway.config import PacingConfig
from gateway.schemas.bodies import ChatBody, ResponsesBody, parse_body, parse_json_object
from gateway.schemas.errors import InvalidRequest
from gateway.schemas.generation import default_targets, from_chat, from_responses
from tests.gateway.api.test_requests import CHAT, RESPONSES
from workers import messages
from workers.messages import Pace, Submit

DEFAULTS = default_targets(PacingConfig(), {})
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 17, 2**40, 2**70, 0.5, -1e300, "", "a", "function", "tool"),
    *("assistant", "auto", "required", "json_schema", "{", "[]", "x" * 300, "\x00\u20ac"),
    *([], {}, [None], [[]], ["a"], {"": None}, {"type": "text"}, {"type": 5}, {"name": "add"}),
]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every element of a document, as its container and its key."""
    found, waiting = [], [value]
    while waiting:
        inner = waiting.pop()
        keys = inner.keys() if isinstance(inner, dict) else range(len(inner))
        for key in list(keys):
            found.append((inner, key))
            if isinstance(inner[key], dict | list):
                waiting.append(inner[key])
    return found


def changed(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A copy of a body with one to three elements changed, removed, doubled or added."""
    body = copy.deepcopy(body)
    for _ in range(chance.randint(1, 3)):
        places = _places(body)
        if not places:
            break
        inner, key = chance.choice(places)
        match chance.randrange(4):
            case 0:
                del inner[key]
            case 1 if isinstance(inner, list):
                inner.insert(key, copy.deepcopy(inner[key]))
            case 2:
                _, other = chance.choice(places)
                if isinstance(inner, dict):
                    inner[str(other)] = copy.deepcopy(chance.choice(VALUES))
            case _:
                inner[key] = copy.deepcopy(chance.choice(VALUES))
    return body


@pytest.mark.parametrize("kind", [ChatBody, ResponsesBody])
def test_anything_is_taken_or_refused(kind: Any) -> None:
    chance = random.Random(16)
    taken = named = 0
    for _ in range(2000):
        document = changed(CHAT if kind is ChatBody else RESPONSES, chance)
        try:
            body = parse_body(parse_json_object(json.dumps(document)), kind)
            if isinstance(body, ChatBody):
                generation = from_chat(body, DEFAULTS)
            else:
                generation = from_responses(body, (), DEFAULTS)
        except InvalidRequest as error:
            json.dumps(error.body())
            named += error.param is not None
            continue
        taken += 1
        submit = Submit(
            request_id="r",
            messages=generation.messages,
            sampling=generation.sampling,
            pace=Pace(tau_s=1.0),
            tools=generation.tools,
            tool_choice=generation.tool_choice,
            template=dict(generation.template),
            effort=generation.effort,
            structure=generation.structure,
        )
        assert messages.decode_to_worker(messages.encode(submit)) == submit
        orjson.dumps(generation.echo)
    assert taken > 400
    assert named > 700
    assert taken + named == 2000
