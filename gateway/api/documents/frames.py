"""What the WebSocket of the operations page sends, as types; see `objects`."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta

from gateway.api.documents.objects import Answer, Count

Time = Annotated[float, Meta(description="Unix time in seconds.")]
Requests = Annotated[
    list[tuple[int, int, int, int, float | None]],
    Meta(
        description="The number of a request, its state (a place in `states`), its instance (a "
        "`place`, or -1), whether no token came for a second, and the seconds of text ahead of its "
        "reader (null before the answer)."
    ),
]
Rows = Annotated[
    list[float | None], Meta(description="A Unix time, then one value for each of `columns`.")
]


class Frame(Answer, tag_field="type"):
    """A message to a viewer."""


class OfTargets(Answer):
    """What readers are promised, in seconds; and the QoE below which a response counts as bad."""

    ttft_s: float
    ttfat_s: float
    tpot_s: float
    slo_qoe: float


class OfNote(Answer):
    """Something that happened to an instance, another policy, or another load."""

    at: Time
    text: str


class Hello(Frame, tag="hello"):
    """The first message. A page for another `protocol` should be loaded again."""

    protocol: int
    version: str | None
    model: str
    policy: str
    policies: Annotated[
        list[str], Meta(description="To which `POST /admin/policy` can switch; none without it.")
    ]
    demo: Annotated[bool, Meta(description="Whether `/admin/demo` is there.")]
    now: Time
    targets: OfTargets
    states: list[str]
    columns: list[str]
    instance_columns: list[str]
    history_s: int
    window_s: Annotated[int, Meta(description="Seconds over which percentiles are taken.")]
    notes: list[OfNote]


class HistoryPart(Frame, tag="history"):
    """Rows of the last half hour, one a second, the oldest first, in several messages."""

    rows: list[Rows]


class RequestList(Frame, tag="requests"):
    """All requests, in one or several messages: a keyframe. With `first` a page forgets others."""

    first: bool
    rows: Requests


class RequestEvents(Frame, tag="events"):
    """What happened to requests in the last quarter of a second.

    `["placed" or "changed", number, state, instance]`, `["moved", number, from, to, KV tokens]`,
    `["waits", number]` after a second without a token, `["goes_on", number]`, and
    `["ended", number, status]`.
    """

    rows: list[list[str | int]]


class InstanceRows(Frame, tag="instances"):
    """All instances, four times a second: a value for each of `instance_columns`."""

    rows: list[list[str | int | float | None]]


class ReaderNews(Frame, tag="readers"):
    """Seconds of text ahead of readers for whom they are not as before, less the time since."""

    rows: list[tuple[int, float]]


class Totals(Answer):
    """What was counted since the gateway started. /metrics has the same numbers."""

    preempted: Count
    moved: Count
    recomputed: Count
    lost: Count
    responses: dict[str, Count]
    refused: Count
    slo_violations: Count
    reasoning_tokens: Count
    answering_tokens: Count
    calling_tokens: Count
    released_tokens: Count


class Second(Frame, tag="second"):
    """One more row of the history, and the totals."""

    row: Rows
    totals: Totals
    policy: str


class Note(Frame, tag="note"):
    """Something that happened to an instance, or another policy."""

    at: Time
    text: str


OperationsFrame: TypeAlias = (
    Hello | HistoryPart | RequestList | RequestEvents | InstanceRows | ReaderNews | Second | Note
)
