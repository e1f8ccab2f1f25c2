"""Reads scripted outputs as the worker does, and as vLLM's own parsers do."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.workers.formats.support.families import Family
from tests.workers.formats.support.tokenizers import tokenizer_with
from tests.workers.support.formats import form_of, submit, user
from workers.formats.form import Format
from workers.messages import Submit
from workers.policy.phase import Phase
from workers.requests.chat_template import ChatRenderer, Rendered
from workers.requests.output_text import output_text
from workers.requests.pieces import KIND, Kind, OutputText, Pieces

TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "clock",
            "description": "The time",
            "parameters": {
                "type": "object",
                "properties": {"zone": {"type": "string"}},
                "required": ["zone"],
            },
        },
    },
)
TEMPLATE = (
    "{% if thinking or enable_thinking or reasoning_effort %}{% endif %}"
    "{% if tools %}{{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: OPEN{% endif %}"
)


@dataclass(slots=True)
class Outcome:
    """An output as a reader gives it."""

    turns: list[tuple[int, str]] = field(default_factory=list)
    segments: list[tuple[str, str]] = field(default_factory=list)  # (kind or call's name, text)

    def text(self, kind: str) -> str:
        """All text of one kind, without white space."""
        joined = "".join(text for one, text in self.segments if one == kind)
        return "".join(joined.split())

    @property
    def calls(self) -> list[tuple[str, Any]]:
        """Names and arguments, in order."""
        named = [(one[5:], text) for one, text in self.segments if one.startswith("call ")]
        return [(name, json.loads(text)) for name, text in named]


class Reading:
    """A family, ready to read outputs."""

    def __init__(self, family: Family, tokenizer: Any = None) -> None:
        """:param tokenizer: its own; None: one of bytes and the family's tokens."""
        self.family = family
        tokenizer = tokenizer or tokenizer_with(family.tokens, words=family.words)
        tokenizer.chat_template = TEMPLATE.replace("OPEN", family.start if family.opened else "")
        self.tokenizer: Any = tokenizer
        self.form: Format = form_of(
            tokenizer=tokenizer,
            reasoning_parser=family.reasoning,
            tool_parser=family.tool or "none",
        )
        self.renderer = ChatRenderer(self.form, 4096)
        tools = TOOLS if family.tool else ()
        self.submit: Submit = submit(user("Hi"), tools=tools, template=family.options)
        self.prompt: Rendered = self.renderer.render(self.submit)

    def ids(self, text: str) -> list[int]:
        """The tokens of an output."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def fresh(self, **changes: Any) -> OutputText:
        """A reader of one output."""
        return output_text(self.renderer, self.prompt, self.submit)

    def read(self, ids: Sequence[int], cuts: Sequence[int]) -> Outcome:
        """Read an output in runs that begin at the cuts."""
        reader = self.fresh()
        return outcome(reader, ids, cuts)


def outcome(reader: OutputText, ids: Sequence[int], cuts: Sequence[int]) -> Outcome:
    """Read an output in runs that begin at the cuts."""
    found = Outcome()
    kind: Kind = KIND[reader.phase]
    edges = sorted({0, *cuts, len(ids)})
    for first, end in itertools.pairwise(edges):
        pieces = reader.push(ids[first:end], last=end == len(ids))
        found.turns += [(first + turn.at, turn.phase) for turn in pieces.turns]
        for one, text, name in _texts(pieces, kind):
            _add(found.segments, one, text, name)
        kind = KIND[reader.phase]
    return found


def _texts(pieces: Pieces, kind: Kind) -> Iterator[tuple[Kind, str, str | None]]:
    if pieces.pieces is not None:
        for piece in pieces.pieces:
            yield piece.kind, piece.text, piece.name
        return
    turns = {turn.at: KIND[Phase(turn.phase)] for turn in pieces.turns}
    for at, text in enumerate(pieces.texts):
        kind = turns.get(at, kind)
        yield kind, text, None


def _add(segments: list[tuple[str, str]], kind: str, text: str, name: str | None) -> None:
    if name is not None:
        segments.append((f"call {name}", text))
    elif segments and segments[-1][0].startswith(kind):
        segments[-1] = segments[-1][0], segments[-1][1] + text
    elif text:
        segments.append((kind, text))


def scripts(family: Family) -> dict[str, str]:
    """Outputs made from the markers of a family, by name."""
    start, end, call = family.start, family.end, family.call
    head = "" if family.opened else start
    made = {
        "two phases": f"{head}I add.{end}Four \u00fc\U0001f6f8.",
        "thoughts without an end": f"{head}I add and add",
        "a marker twice": f"{head}I add.{end}Four.",
        "no thoughts": f"{head}{end}Four.",
    }
    if call:
        made["answer and call"] = f"{head}I ask.{end}I look.{call}"
        made["call at once"] = f"{head}I ask.{end}{call}"
    if call and family.implicit:
        made["call in the thoughts"] = f"{head}I ask.{call}"
    if family.reopens:
        made["thoughts again"] = f"{head}One.{end}Two.{start}Three.{end}Four."
    if family.reopens and call and family.tool not in ("mistral", "deepseek_v4"):
        made["all"] = f"{head}One.{end}Two.{start}Three.{call}"
    return made
