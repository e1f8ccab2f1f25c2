"""The plots of a load run, as SVG text within an HTML page.

Each function takes the JSON of one result, or of several by name. It returns SVG, or None if the
result holds nothing to draw. Text and axes take the colour of the text around them, so that one
plot serves a light page, a dark page and paper. Labels are never interpreted as markup.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.reporting.statistics import SLO_QOE, percentile

matplotlib.use("Agg")

Result: TypeAlias = Mapping[str, Any]
Results: TypeAlias = Mapping[str, Result]  # by the name that the legend shows

COLOURS: Final = ("#3b82c4", "#d9822b", "#2f9e6e", "#c2456b", "#8a63c9", "#7f8b3a", "#4aa3a3")
_INK: Final = "#010203"  # a placeholder for the colour of the surrounding text
FADED: Final = "#8a9099"
THOUGHT, ANSWER, WAIT, READ = "#8a63c9", "#2f9e6e", "#d9822b", "#8cc9ab"
_ORDER: Final = (
    "held back", "prefill", "reasoning", "to the answer", "answering", "only being read",
    "failed", "interrupted",
)  # fmt: skip
_MOST_POINTS: Final = 400  # of a curve: more would not be visible
MOST_ROWS: Final = 48  # of the timeline
_STYLE: Final[Any] = {  # keys of matplotlib's rcParams
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["sans-serif"],
    "font.size": 9.0,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FADED,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}


def ttft_by_reasoning(result: Result) -> str | None:
    """TTFT of every request over the length of its reasoning, with median and p99 of bins."""
    points = sorted(
        (request["reasoning_tokens"], request["ttft_s"])
        for request in _sound(result)
        if request["reasoning_tokens"] is not None and request["ttft_s"] is not None
    )
    if not points:
        return None

    def draw(axes: Axes) -> None:
        shown = thinned(points)
        axes.scatter(
            [length for length, _ in shown], [value for _, value in shown],
            s=20, color=COLOURS[0], alpha=0.6, linewidths=0, label="one request",
        )  # fmt: skip
        bins = _binned(points)
        if len(bins) > 1:
            middles = [middle for middle, _ in bins]
            for percent, line in ((50, "-"), (99, "--")):
                heights = [percentile(sorted(values), percent) for _, values in bins]
                axes.plot(middles, heights, line, color=COLOURS[1], marker="o", markersize=3,
                          label=f"p{percent} of a bin")  # fmt: skip
        axes.set_xlabel("reasoning tokens")
        axes.set_ylabel("TTFT (s)")
        axes.set_ylim(bottom=0)
        axes.legend()

    return svg("ttft", draw)


_CDFS: Final = (
    ("ttft_s", "TTFT (s)"),
    ("ttfat_s", "TTFAT (s)"),
    ("tpot_s", "TPOT (s)"),
    ("e2e_s", "end to end (s)"),
)


def cdfs(results: Results) -> str | None:
    """Cumulative distributions of TTFT, TTFAT, TPOT and end-to-end time."""
    shown = [
        (label, {name: _values(result, key) for name, result in results.items()})
        for key, label in _CDFS
    ]
    shown = [(label, by_name) for label, by_name in shown if any(by_name.values())]
    if not shown:
        return None

    def drawing(label: str, by_name: Mapping[str, list[float]]) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            for colour, (name, values) in zip(_colours(), by_name.items(), strict=False):
                _cdf(axes, values, colour, name)
            axes.set_xlabel(label)
            axes.set_xlim(left=0)
            axes.set_ylim(0, 1)
            axes.set_ylabel("share of requests")
            if len(by_name) > 1:
                axes.legend()

        return draw

    return svg("cdf", *(drawing(label, by_name) for label, by_name in shown))


def qoe(results: Results) -> str | None:
    """Cumulative distribution of the QoE; failed requests have 0."""
    by_name = {
        name: sorted(r["qoe"] for r in result["requests"] if r["qoe"] is not None)
        for name, result in results.items()
    }
    if not any(by_name.values()):
        return None

    def draw(axes: Axes) -> None:
        for colour, (name, values) in zip(_colours(), by_name.items(), strict=False):
            _cdf(axes, values, colour, name, least=0.0, most=1.0)
        axes.axvline(SLO_QOE, color=FADED, linestyle="--")
        axes.annotate(
            f"SLO {SLO_QOE}", (SLO_QOE, 0.98), textcoords="offset points", xytext=(-4, 0),
            ha="right", va="top", color=FADED,
        )  # fmt: skip
        lowest = min(values[0] for values in by_name.values() if values)
        axes.set_xlim(min(0.9, lowest - 0.02), 1.005)
        axes.set_ylim(0, 1)
        axes.set_xlabel("QoE")
        axes.set_ylabel("share of requests")
        if len(by_name) > 1:
            axes.legend(loc="upper left")

    return svg("qoe", draw)


def token_gaps(results: Results) -> str | None:
    """Frequency of the times between two deltas of an answer; both scales are logarithmic."""
    by_name = {
        name: sorted(max(gap, 1e-5) for request in _sound(result) for gap in request["itl_s"] or ())
        for name, result in results.items()
    }
    if not any(by_name.values()):
        return None
    low = min(values[0] for values in by_name.values() if values)
    high = max(values[-1] for values in by_name.values() if values)
    edges = _log_edges(low, high, 60)

    def draw(axes: Axes) -> None:
        for colour, (name, values) in zip(_colours(), by_name.items(), strict=False):
            counts = _counts(values, edges)
            axes.stairs(counts, edges, color=colour, fill=len(by_name) == 1, alpha=0.75, label=name)
        paces = {result["config"]["tpot_s"] for result in results.values()}
        for tau_s in paces:
            axes.axvline(tau_s, color=FADED, linestyle="--")
            axes.annotate(
                f"pace {tau_s:g} s", (tau_s, 0.98), xycoords=("data", "axes fraction"),
                textcoords="offset points", xytext=(4, 0), va="top", color=FADED,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))  # the default is markup
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("time between two deltas (s)")
        axes.set_ylabel("deltas")
        if len(by_name) > 1:
            axes.legend()

    return svg("gaps", draw)


def reader_buffers(result: Result) -> str | None:
    """Tokens generated, released and read by the readers that `reader_curves` picked."""
    curves = result.get("curves") or []
    if not curves:
        return None

    def drawing(curve: Mapping[str, Any]) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            at_s, released = curve["at_s"], curve["released"]
            rows = thinned(list(zip(at_s, released, curve["generated"], strict=True)))
            times = [row[0] for row in rows]
            if all(row[2] is not None for row in rows):
                axes.step(times, [row[2] for row in rows], where="post", color=THOUGHT,
                          label="generated")  # fmt: skip
                axes.fill_between(
                    times, [row[1] for row in rows], [row[2] for row in rows],
                    step="post", color=THOUGHT, alpha=0.15, linewidth=0, label="buffer",
                )  # fmt: skip
            axes.step(times, [row[1] for row in rows], where="post", color=ANSWER,
                      label="released")  # fmt: skip
            tokens = released[-1]
            axes.plot([0, (tokens - 1) * curve["tau_s"]], [1, tokens], "--", color=WAIT,
                      label="reading curve")  # fmt: skip
            axes.set_title(
                f"{curve['reader']}: request {curve['index']}, QoE {curve['qoe']:.3f}", fontsize=9
            )
            axes.set_xlabel("seconds from the first answering token")
            axes.set_ylabel("answering tokens")
            axes.set_ylim(bottom=0)
            axes.legend(loc="lower right")

        return draw

    return svg("reader", *map(drawing, curves))


def timeline(result: Result) -> str | None:
    """The phases of requests, one per row, in the order in which they were due."""
    rows = [r for r in result["requests"] if r["sent_s"] is not None and r["ended_s"] is not None]
    if not rows:
        return None
    rows = thinned(sorted(rows, key=lambda r: r["scheduled_s"]), MOST_ROWS)

    def draw(axes: Axes) -> None:
        shown: dict[str, str] = {}
        for row, request in enumerate(rows):
            for label, colour, start_s, end_s in phases(request):
                axes.barh(row, end_s - start_s, left=start_s, height=0.8, color=colour, linewidth=0)
                shown[label] = colour
        axes.set_ylim(len(rows) - 0.5, -0.5)
        size = 6 if len(rows) > 24 else 8
        axes.set_yticks(range(len(rows)), [str(r["index"]) for r in rows], fontsize=size)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("seconds from the start of the run")
        axes.set_ylabel("request")
        order = sorted(shown, key=_ORDER.index)
        axes.legend(
            handles=[Patch(color=shown[label], label=label) for label in order],
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(order),
        )  # fmt: skip

    return svg("timeline", draw, height=1.2 + 0.12 * max(12, len(rows)), width=10.0)


def phases(request: Mapping[str, Any]) -> list[tuple[str, str, float, float]]:
    """The phases of one request: name, colour, begin and end in seconds of the run."""
    sent, ended = request["sent_s"], request["ended_s"]
    queued = request["queued_s"] or 0.0
    spans = [("held back", FADED, sent - queued, sent)]
    if request["outcome"] not in ("completed", "incomplete"):
        return [*spans, (request["outcome"], COLOURS[3], sent, ended)]
    at = sent
    first_token = request.get("first_token_s")
    if first_token is not None:
        at = sent + first_token
        spans.append(("prefill", "#3b82c4", sent, at))
    if request["ttft_s"] is not None:
        answer = sent + request["ttft_s"]
        thought = answer - (request["ttfat_s"] or 0.0)
        spans.append(("reasoning", THOUGHT, at, max(at, thought)))
        spans.append(("to the answer", WAIT, max(at, thought), answer))
        raw = (request["timing"] or {}).get("raw") or {}
        generated = min(ended, sent + raw["e2e_s"]) if raw.get("e2e_s") is not None else ended
        generated = max(answer, generated)
        spans.append(("answering", ANSWER, answer, generated))
        spans.append(("only being read", READ, generated, ended))
    else:
        spans.append(("reasoning", THOUGHT, at, ended))
    return [phase for phase in spans if phase[3] > phase[2]]


def by_turn(result: Result) -> str | None:
    """TTFT and prompt length of all first turns, all second turns and so on."""
    turns = result.get("by_turn") or []
    if not turns:
        return None

    def draw_ttft(axes: Axes) -> None:
        for key, line in (("p50", "-o"), ("p99", "--o")):
            rows = [
                (t["turn"] + 1, t["ttft_s"][key]) for t in turns if t["ttft_s"][key] is not None
            ]
            if rows:
                axes.plot(*zip(*rows, strict=True), line, color=COLOURS[0], markersize=4, label=key)
        axes.set_xticks([t["turn"] + 1 for t in turns])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("turn")
        axes.set_ylabel("TTFT (s)")
        axes.legend()

    def draw_prompts(axes: Axes) -> None:
        means = [t["input_tokens"]["mean"] or 0.0 for t in turns]
        axes.bar([t["turn"] + 1 for t in turns], means, color=COLOURS[4], width=0.6)
        axes.set_xticks([t["turn"] + 1 for t in turns])
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("turn")
        axes.set_ylabel("prompt tokens, mean")

    return svg("turns", draw_ttft, draw_prompts)


def _plain(value: float, _: int | None = None) -> str:
    return f"{value:g}"


def _sound(result: Result) -> Iterable[Mapping[str, Any]]:
    return (r for r in result["requests"] if r["outcome"] in ("completed", "incomplete"))


def _values(result: Result, key: str) -> list[float]:
    return sorted(request[key] for request in _sound(result) if request[key] is not None)


def _colours() -> Iterable[str]:
    while True:
        yield from COLOURS


def thinned(rows: list[Any], most: int = _MOST_POINTS) -> list[Any]:
    """At most that many of them, evenly spaced, with the first and the last."""
    if len(rows) <= most:
        return rows
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _cdf(
    axes: Axes,
    values: Sequence[float],
    colour: str,
    label: str,
    *,
    least: float | None = None,
    most: float | None = None,
) -> None:
    if not values:
        return
    steps = [(value, (rank + 1) / len(values)) for rank, value in enumerate(values)]
    points = [(values[0] if least is None else least, 0.0), *thinned(steps)]
    if most is not None:
        points.append((most, 1.0))
    axes.step(*zip(*points, strict=True), where="post", color=colour, label=label)


def _binned(points: list[tuple[int, float]]) -> list[tuple[float, list[float]]]:
    """Bins with the same number of requests, at least 20, by the middle of their lengths."""
    count = min(8, len(points) // 20)
    bins = []
    for number in range(count):
        part = points[number * len(points) // count : (number + 1) * len(points) // count]
        lengths = [length for length, _ in part]
        bins.append(((lengths[0] + lengths[-1]) / 2, [value for _, value in part]))
    return bins


def _log_edges(low: float, high: float, count: int) -> list[float]:
    span = math.log(max(high / low, 1.1)) * 1.001
    return [low * math.exp(span * i / count) for i in range(count + 1)]


def _counts(ordered: Sequence[float], edges: Sequence[float]) -> list[int]:
    counts = [0] * (len(edges) - 1)
    bin_ = 0
    for value in ordered:
        while bin_ < len(counts) - 1 and value >= edges[bin_ + 1]:
            bin_ += 1
        counts[bin_] += 1
    return counts


def svg(
    name: str, *draw: Callable[[Axes], None], width: float | None = None, height: float = 3.0
) -> str:
    """Draw side by side, in inches; ids begin with ``name``, because plots share one page."""
    columns = 2 if len(draw) == 4 else len(draw)
    rows = -(-len(draw) // columns)
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Figure(
            figsize=(width or (8.0 if columns == 1 else 5.0 * columns), height * rows),
            layout="constrained",
        )
        for number, function in enumerate(draw):
            function(figure.add_subplot(rows, columns, number + 1))
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'(\bid="|"url\(#|: url\(#|href="#)', rf"\g<1>{name}-", text)
