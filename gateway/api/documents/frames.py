"""What the WebSocket of the operations page sends and takes, as types; see `objects`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from gateway.api.documents.objects import Answer, Count, ErrorObject, Share

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


MOST_NUMBER = 2**53 - 1  # of a request: what JSON carries exactly everywhere

# Of which a viewer can ask for the requests behind it.
Figure: TypeAlias = Literal[
    "live",
    "queued",
    "reasoning",
    "answering",
    "delivering",
    "ttft",
    "ttfat",
    "qoe",
    "dry",
    "waiting",
    "moved",
]


class Follow(msgspec.Struct, tag="follow", tag_field="type", forbid_unknown_fields=True):
    """Ask for the details of one request, four times a second until it ends; null: no longer."""

    number: Annotated[int, Meta(ge=1, le=MOST_NUMBER)] | None = None


class Rank(msgspec.Struct, tag="rank", tag_field="type", forbid_unknown_fields=True):
    """Ask for the three worst requests behind a figure, once a second; null: no longer."""

    figure: Figure | None = None


class Frame(Answer, tag_field="type"):
    """A message to a viewer."""


class OfTargets(Answer):
    """What readers are promised, in seconds; and the QoE below which a response counts as bad."""

    ttft_s: float
    ttfat_s: float
    tpot_s: float
    slo_qoe: float


class OfNote(Answer):
    """Something that happened to an instance, or that an operator chose."""

    at: Time
    text: str
    choice: Annotated[bool, Meta(description="Another policy, or another rule.")]


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
    boundary: str
    boundaries: Annotated[
        list[str], Meta(description="To which `POST /admin/placement` can switch.")
    ]
    now: Time
    targets: OfTargets
    states: list[str]
    marks: Annotated[list[str], Meta(description="What the life of a request can have.")]
    figures: Annotated[list[str], Meta(description="Of which `rank` can ask for the worst.")]
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
    boundary: str


class Note(Frame, tag="note"):
    """Something that happened to an instance, or that an operator chose."""

    at: Time
    text: str
    choice: bool


class OfTokens(Answer):
    """Tokens of one request; `waiting`: of the answer, generated and not sent yet."""

    prompt: Count
    reasoning: Count
    answering: Count
    calling: Count
    waiting: Count


class RequestDetails(Frame, tag="request"):
    """The request that a viewer follows, four times a second until it ends. It has no text."""

    number: int
    response: Annotated[str, Meta(description="The id of the response, as in the log.")]
    status: str
    instance: str | None
    created_at: Time
    age_s: float
    watched_s: Annotated[
        float,
        Meta(description="Its age when it was seen first: of waits before that nothing is known."),
    ]
    marks: Annotated[
        list[tuple[float, str, str | None]],
        Meta(description="Seconds since it was submitted, one of `marks`, and its instance."),
    ]
    marks_dropped: Annotated[
        Count, Meta(description="Behind the first mark so many are missing, because it has many.")
    ]
    tokens: OfTokens
    ttft_s: float | None
    ttfat_s: float | None
    qoe: Share | None
    ahead_s: Annotated[float | None, Meta(description="Seconds of text ahead of its reader.")]
    tpot_s: Annotated[float | None, Meta(description="The reader's pace; null without one.")]
    paused: bool
    moves: Count
    failovers: Count
    preemptions: Annotated[Count, Meta(description="Reported by an engine that is done with it.")]


class UnknownRequest(Frame, tag="unknown_request"):
    """The request that was to be followed has ended, or never was."""

    number: int


class WorstRequests(Frame, tag="worst"):
    """The worst requests behind a figure, at most three: each with its number and its value."""

    figure: str
    rows: list[tuple[int, float]]


class Refused(Frame, tag="refused"):
    """What a viewer asked for is wrong."""

    error: ErrorObject


OperationsFrame: TypeAlias = (
    Hello
    | HistoryPart
    | RequestList
    | RequestEvents
    | InstanceRows
    | ReaderNews
    | Second
    | Note
    | RequestDetails
    | UnknownRequest
    | WorstRequests
    | Refused
)
