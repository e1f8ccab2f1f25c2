"""What a model can do, found by asking its template; and how a request controls its thinking.

A template is asked by writing a small conversation with and without an option: an option that
changes the prompt is one that the model knows. What a model cannot do is an error that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.errors import RequestRejected
from workers.formats.template import RESERVED, Template
from workers.messages import ChatMessage, Submit

# Words that clients use; "none" switches thinking off instead.
EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max")
_EFFORT_OPTION = "reasoning_effort"
# How templates call the switch for thinking, and its two values.
_SWITCHES: Mapping[str, tuple[Any, Any]] = {
    "enable_thinking": (False, True),
    "thinking": (False, True),
    "thinking_mode": ("disabled", "enabled"),
}
_SAMPLE = (ChatMessage(role="user", content="Hi"),)
_SAMPLE_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "clock_of_the_town_hall",
        "description": "The time",
        "parameters": {"type": "object", "properties": {}},
    },
}


@dataclass(frozen=True, slots=True)
class FormatFacts:
    """What a model can do. Does not change while it is loaded."""

    thinks: bool
    switch: tuple[str, ...]  # options of the template that switch thinking off or on
    efforts: tuple[str, ...]  # words that the template takes; empty: it knows no effort
    tools: bool  # whether it reads and writes calls
    budget: bool  # whether its thoughts can be ended after a number of tokens
    options: frozenset[str] | None  # of the template, by name; None: nobody can tell


@dataclass(frozen=True, slots=True)
class Control:
    """What a request asks of the template and of the engine."""

    options: Mapping[str, Any]  # for the template
    thinking: bool | None  # as it was asked for; None: the model decides
    budget: int | None  # most reasoning tokens; None: no bound


def facts_of(template: Template, *, thinks: bool, calls: bool, budget: bool) -> FormatFacts:
    """Ask a template what it knows.

    :param calls: whether calls in the output can be read.
    :param budget: whether the end of the thoughts can be written for the model.
    """
    plain = _tried(template, {})
    variables = template.variables()
    switch = tuple(
        name
        for name, (off, on) in _SWITCHES.items()
        if (variables is None or name in variables)
        and len({plain, _tried(template, {name: off}), _tried(template, {name: on})}) > 1
    )
    efforts: tuple[str, ...] = ()
    if variables is None or _EFFORT_OPTION in variables:
        written = {word: _tried(template, {_EFFORT_OPTION: word}) for word in EFFORTS}
        taken = {word: text for word, text in written.items() if text is not None}
        if len({*taken.values(), plain}) > 1:
            efforts = tuple(taken)
    tools = calls and _SAMPLE_TOOL["function"]["name"] in str(
        _tried(template, {}, tools=[_SAMPLE_TOOL], as_text=True)
    )
    return FormatFacts(thinks, switch if thinks else (), efforts, tools, budget, variables)


def _tried(
    template: Template,
    options: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    as_text: bool = False,
) -> str | None:
    """A sample as it is written; None: the template refuses it."""
    try:
        written = template.write(_SAMPLE, tools, options)
    except RequestRejected:
        return None
    if isinstance(written, str):
        return written
    if as_text:
        return template.tokenizer.decode(written, skip_special_tokens=False)
    return repr(written)


def control_of(submit: Submit, facts: FormatFacts, budgets: Mapping[str, int]) -> Control:
    """From the words of a request to the template's options and a budget.

    :param budgets: reasoning tokens by word, for models whose template knows no effort; 0: as
        many as the model likes.
    :raises RequestRejected: naming ``effort``, ``thinking``, ``template.<name>`` or
        ``sampling.thinking_budget``.
    """
    options = dict(submit.template)
    _check_options(options, facts)
    budget = submit.sampling.thinking_budget
    if budget is not None and facts.thinks and not facts.budget:
        raise _cannot(
            "sampling.thinking_budget", "its thoughts do not end with tokens that can be written"
        )
    thinking = submit.thinking
    effort = submit.effort
    if effort == "none":
        thinking, effort = False, None
    if effort is not None:
        options, budget = _with_effort(effort, options, budget, facts, budgets)
    if thinking is not None:
        _switch(thinking, options, facts, "effort" if submit.effort == "none" else "thinking")
    return Control(options, _asked(thinking, options), budget if facts.thinks else None)


def _with_effort(
    effort: str,
    options: dict[str, Any],
    budget: int | None,
    facts: FormatFacts,
    budgets: Mapping[str, int],
) -> tuple[dict[str, Any], int | None]:
    if not facts.thinks and not facts.efforts:
        raise _cannot("effort", "it does not think")
    if facts.efforts:
        if effort not in facts.efforts:
            raise _cannot("effort", f"it knows {_listed(facts.efforts)}, got {effort!r}")
        return {_EFFORT_OPTION: effort} | options, budget  # an option of the client wins
    if effort not in budgets:
        known = _listed(tuple(budgets)) if budgets else "none"
        raise _cannot("effort", f"model.thinking_budgets has a budget for {known}, got {effort!r}")
    tokens = budgets[effort]
    if tokens == 0 or budget is not None:
        return options, budget
    if not facts.budget:
        raise _cannot("effort", "its thoughts do not end with tokens that can be written")
    return options, tokens


def _switch(thinking: bool, options: dict[str, Any], facts: FormatFacts, param: str) -> None:
    if not facts.thinks:
        if thinking:
            raise _cannot(param, "it does not think")
        return
    if not facts.switch:
        if not thinking:
            raise _cannot(param, "its thinking cannot be switched off")
        return
    for name in facts.switch:
        options.setdefault(name, _SWITCHES[name][thinking])


def _asked(thinking: bool | None, options: Mapping[str, Any]) -> bool | None:
    if thinking is not None:
        return thinking
    for name, (off, on) in _SWITCHES.items():
        if options.get(name) in (off, on):
            return bool(options[name] == on)
    return None


def _check_options(options: Mapping[str, Any], facts: FormatFacts) -> None:
    for name in options:
        if name in RESERVED or name.startswith("_"):
            raise RequestRejected(
                "invalid_value", f"the option {name!r} is not the client's", f"template.{name}"
            )
        if facts.options is not None and name not in facts.options:
            raise _cannot(f"template.{name}", f"its template has no option {name!r}")


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(repr(word) for word in words)


def _cannot(param: str, why: str) -> RequestRejected:
    return RequestRejected("unsupported_value", f"the model cannot do this: {why}", param)


def budgets_of(pairs: Sequence[str]) -> dict[str, int]:
    """From ``("low=512", ...)`` to tokens by word; :raises ValueError: naming what is wrong."""
    budgets: dict[str, int] = {}
    for pair in pairs:
        word, _, tokens = pair.partition("=")
        if not word or not tokens.isdecimal():
            raise ValueError(
                f"model.thinking_budgets: {pair!r} is not word=tokens, such as low=512"
            )
        budgets[word] = int(tokens)
    return budgets
