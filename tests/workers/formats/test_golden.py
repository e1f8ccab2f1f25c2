"""Our reading of every format against vLLM's own parser, token by token."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from vllm.parser import ParserManager
from vllm.reasoning import ReasoningParserManager

from tests.workers.formats.support.families import (
    BY_TEXT,
    FAMILIES,
    NOT_COVERED,
    OWN_TESTS,
    Family,
)
from tests.workers.formats.support.reading import Outcome, Reading, scripts
from workers.formats.markers import _kind, engine_config
from workers.policy.phase import Phase, PhaseTracker

CASES = [
    pytest.param(family, name, id=f"{family.reasoning}-{family.tool}-{name}")
    for family in FAMILIES
    for name in scripts(family)
]
_PHASE = {"reasoning": Phase.REASONING, "answer": Phase.ANSWERING, "call": Phase.CALLING}


@functools.cache
def reading_of(family_index: int) -> Reading:
    return Reading(FAMILIES[family_index])


def reading(family: Family) -> Reading:
    return reading_of(FAMILIES.index(family))


def vllm_parser(of: Reading) -> Any:
    """vLLM's parser, composed as vLLM's server does."""
    made = ParserManager.get_parser(of.family.tool, of.family.reasoning, True)
    assert made is not None
    options = dict(of.family.options)
    return made(of.tokenizer, of.prompt.request.wire.tools, chat_template_kwargs=options)


def test_every_registered_parser_has_a_case_or_a_reason() -> None:
    covered = {family.reasoning for family in FAMILIES} | set(OWN_TESTS)
    covered |= {family.reasoning for family, _ in BY_TEXT}
    folder = Path(__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("test_*.py")]
    for name in OWN_TESTS:
        assert any(f'"{name}"' in text for text in texts), name
    assert covered.isdisjoint(NOT_COVERED)
    assert covered | set(NOT_COVERED) == set(ReasoningParserManager.list_registered())


@pytest.mark.parametrize(("family", "name"), CASES)
def test_text_and_calls_are_those_of_vllm(family: Family, name: str) -> None:
    of = reading(family)
    output = scripts(family)[name]
    ids = of.ids(output)
    parser = vllm_parser(of)
    reasoning, content, calls = parser.parse(output, of.prompt.request.wire, True, ids)
    ours = of.read(ids, range(len(ids)))
    if family.reasoning == "k2_horizon" and name == "thoughts without an end":
        # Read whole, vLLM takes them for an answer; streamed, for thoughts, as we do.
        reasoning, content = content, None
    assert ours.text("reasoning") == "".join((reasoning or "").split())
    if family.reasoning != "mistral":  # vLLM keeps no answer before a call of Mistral
        assert ours.text("answer") == "".join((content or "").split())
    assert ours.calls == [(call.name, json.loads(call.arguments)) for call in calls or ()]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_cut_anywhere_it_is_the_same(family: Family, name: str) -> None:
    of = reading(family)
    ids = of.ids(scripts(family)[name])
    whole = of.read(ids, ())
    assert of.read(ids, range(len(ids))) == whole
    for cut in range(1, len(ids)):
        assert of.read(ids, (cut,)) == whole, cut


@pytest.mark.parametrize(("family", "name"), CASES)
def test_the_phase_of_every_token_is_the_state_of_vllms_parser(family: Family, name: str) -> None:
    of = reading(family)
    ids = of.ids(scripts(family)[name])
    tracker = PhaseTracker(of.prompt.request.markers, of.prompt.phase)
    ours = []
    for token_id in ids:
        tracker.feed([token_id])
        ours.append(tracker.phase)
    assert ours == vllm_phases(of, ids)


def vllm_phases(of: Reading, ids: list[int]) -> list[Phase]:
    """The phase after each token: by the state of a declarative parser, else by the end."""
    parser = of.form.composed(of.prompt.request)
    config = engine_config(parser.reasoning_parser)
    if config is not None:
        unified = of.form.parser(of.prompt.request)
        if hasattr(unified, "_engine"):
            unified.adjust_initial_state_from_prompt(list(of.prompt.begun))
            phases = []
            for token_id in ids:
                unified._engine.feed(of.tokenizer.decode([token_id]), [token_id])
                phases.append(_PHASE[_kind(unified._engine.state)])
            return phases
    return _by_end(of, parser.reasoning_parser, ids)


def _by_end(of: Reading, parser: Any, ids: list[int]) -> list[Phase]:
    phases, ended = [], False
    markers = of.form.reading.markers
    assert markers is not None
    calls = {token for marker in markers.call_starts for token in marker}
    closes = {token for marker in markers.call_ends for token in marker}
    phase = of.prompt.phase
    for at, token_id in enumerate(ids):
        ended = ended or parser.is_reasoning_end_streaming(ids[: at + 1], [token_id])
        if phase is Phase.REASONING and ended:
            phase = Phase.ANSWERING
        if phase is Phase.ANSWERING and token_id in calls:
            phase = Phase.CALLING
        elif phase is Phase.CALLING and token_id in closes:
            phase = Phase.ANSWERING
        phases.append(phase)
    return phases


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"{family.reasoning}-{family.tool}")
def test_thoughts_end_where_vllm_says(family: Family) -> None:
    of = reading(family)
    name = "call in the thoughts" if "call in the thoughts" in scripts(family) else "two phases"
    ids = of.ids(scripts(family)[name])
    parser = of.form.composed(of.prompt.request).reasoning_parser
    ended = next(
        at
        for at in range(len(ids))
        if parser.is_reasoning_end_streaming(ids[: at + 1], [ids[at]])
        and of.family.start not in of.tokenizer.convert_ids_to_tokens(ids[at : at + 1])
        and (not family.opened or at > 0 or name == "no thoughts")
        and any(of.tokenizer.convert_ids_to_tokens([ids[at]])[0] in m for m in family.tokens)
    )
    turns = of.read(ids, ()).turns
    first = next(turn for turn in turns if turn[1] != "reasoning")
    # The token that ends the thoughts belongs to them; one that opens a call belongs to the call.
    assert first[0] == (ended if first[1] == "calling" else ended + 1)


def test_outcomes_differ_where_outputs_do() -> None:
    of = reading(FAMILIES[0])
    outcomes = [of.read(of.ids(text), ()) for text in scripts(FAMILIES[0]).values()]
    assert len({str(one) for one in outcomes}) > 1
    assert outcomes[0] != Outcome()
