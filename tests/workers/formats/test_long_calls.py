"""Long calls: nothing is lost, and the work for one grows with its length, not with its square."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.workers.formats.support.families import FAMILIES, Family
from tests.workers.formats.support.reading import TOOLS, Reading, outcome
from tests.workers.support.formats import submit, user
from workers.messages import ToolChoice
from workers.requests import calls
from workers.requests.output_text import output_text

LONG = "ab cd " * 700
_BY_TOOL = {family.tool: family for family in FAMILIES if family.call.count("UTC") == 1}


class Counting:
    """Counts how often a function of a parser is called."""

    def __init__(self, parser: Any, name: str) -> None:
        self.times = 0
        plain = getattr(parser, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.times += 1
            return plain(*arguments, **named)

        setattr(parser, name, counted)


@pytest.mark.parametrize("family", _BY_TOOL.values(), ids=list(map(str, _BY_TOOL)))
def test_a_long_call_is_whole_and_its_parser_is_seldom_asked(family: Family) -> None:
    reading = Reading(family)
    text = f"I ask.{family.end}" + family.call.replace("UTC", LONG.strip())
    ids = reading.ids(text)
    reader: Any = reading.fresh()
    if reading.form.reading.split == "parser":
        counting = Counting(reader._parser, "parse_delta")
    else:
        counting = Counting(reader._calls._parser, "extract_tool_calls_streaming")
    found = outcome(reader, ids, range(len(ids)))
    ((name, arguments),) = found.calls
    assert (name, arguments["zone"].strip()) == ("clock", LONG.strip())
    if family.tool != "gemma4":  # which reads no text twice, and gives the arguments at the end
        assert counting.times < 900 < len(ids) / 4


@pytest.mark.parametrize("name", [None, "clock"])
def test_forced_calls_too(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(Family("deepseek_r1", "pythonic"))
    request = submit(user("Hi"), tools=TOOLS, tool_choice=ToolChoice(mode="required", name=name))
    prompt = reading.renderer.render(request)
    assert prompt.request.forced == (name or "")
    arguments = '{"zone": "' + LONG.strip() + '"}'
    text = arguments if name else '[{"name": "clock", "parameters": ' + arguments + "}]"
    ids = reading.ids(f"I ask.</think>{text}")
    asked = "extract_required_tool_call_streaming"
    monkeypatch.setattr(calls, asked, getattr(calls, asked))  # undoes what `Counting` does
    counting = Counting(calls, asked)
    found = outcome(output_text(reading.renderer, prompt, request), ids, range(len(ids)))
    assert found.calls == [("clock", {"zone": LONG.strip()})]
    assert counting.times < 900


def test_portions_grow_with_the_call() -> None:
    portions, length, sizes = calls.Portions(), 0, []
    for token_id in range(100_000):
        if portions.add(token_id, "x", length):
            text, ids = portions.take()
            assert len(text) == len(ids)
            length += len(text)
            sizes.append(len(text))
    assert sizes[:513] == [1] * 513
    assert all(earlier <= later for earlier, later in itertools.pairwise(sizes))
    assert len(sizes) < 600
    rest, ids = portions.take("end")
    assert length + len(rest) - 3 == 100_000
    assert rest.endswith("xend")
    assert portions.take() == ("", [])
