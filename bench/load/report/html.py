"""Reports of load runs as one HTML file, without scripts and with all plots inside.

Pure: takes the JSON of results and returns the text of a page. All text from servers, flags and
file names is escaped. The plots are `bench.load.report.plots`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Final

from bench.load.measure import AGENT_METRICS, LATE_S
from bench.load.report.terminal import AGENT_LABELS, LABELS, agents_line, generator_lines
from bench.reporting.statistics import SLO_QOE

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2024; background: #fff; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
p { margin: .4rem 0; } .quiet { color: #667; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #8884; text-align: right; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom-color: #888; }
td.text, th.text { text-align: left; overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; }
.tile { border: 1px solid #8886; border-radius: .5rem; padding: .5rem .9rem; min-width: 7rem; }
.tile b { display: block; font-size: 1.25rem; }
.note { border-left: 4px solid #2f9e6e; padding: .3rem .8rem; background: #2f9e6e1a; }
.warning { border-left-color: #d9822b; background: #d9822b22; }
figure { margin: 1rem 0; break-inside: avoid; } figure svg { max-width: 100%; height: auto; }
figcaption { color: #667; font-size: .9rem; }
@media (prefers-color-scheme: dark) { body { color: #e4e7ea; background: #15181b; }
  .quiet, figcaption { color: #9aa4ae; } }
@media print { :root { color-scheme: light; } body { margin: 0; max-width: none; font-size: 11px;
  color: #000; background: #fff; } .quiet, figcaption { color: #444; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""
_CSP: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_UNSET: Final[tuple[Any, ...]] = (None, [], (), {})

# Rows of the table: label, key of the result, factor, digits.
METRICS: Final = (
    (LABELS["ttft"], "ttft_s", 1000.0, 1),
    (LABELS["ttfat"], "ttfat_s", 1000.0, 1),
    (LABELS["tpot"], "tpot_s", 1000.0, 2),
    ("TPOT of the engine (ms)", "tpot_raw_s", 1000.0, 2),
    (LABELS["itl"], "itl_s", 1000.0, 2),
    (LABELS["e2el"], "e2e_s", 1000.0, 0),
    (LABELS["qoe"], "qoe", 1.0, 4),
)


def page(title: str, *parts: str) -> str:
    """A whole page. The parts are HTML, the title is plain text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_CSP}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def report_page(result: Mapping[str, Any]) -> str:
    """The report of one run."""
    config = result["config"]
    return page(
        f"Load on {result['model']}",
        f"<h1>Load on {escape(result['model'])}</h1>",
        f'<p class="quiet">{escape(result["date"])} · {escape(config["base_url"])} · '
        f"{escape(config['api'])}</p>",
        _tiles(result),
        _notes(result),
        "<h2>Results</h2>",
        _metrics(result),
        _tasks(result),
        _plots(result),
        _reasons("Failed", result["errors"]),
        _reasons("Incomplete", result["incomplete_reasons"]),
        "<h2>Flags</h2>",
        table(
            ("flag", "value"),
            [(name, _flag(value)) for name, value in config.items() if value not in _UNSET],
            text=True,
        ),
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, text: bool = False) -> str:
    """A table of plain text, aligned to the right; with ``text``, to the left."""
    kind = ' class="text"' if text else ""
    cells = "".join(f"<th{kind}>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(title: str, caption: str, svg: str | None) -> str:
    """A plot under its title, or a sentence if there is nothing to draw."""
    drawn = svg if svg is not None else "<p>Nothing was measured.</p>"
    return (
        f"<h2>{escape(title)}</h2><figure>{drawn}<figcaption>{escape(caption)}</figcaption>"
        "</figure>"
    )


def number(value: float | None, digits: int = 2, factor: float = 1.0) -> str:
    """A number, or a dash for None."""
    return "-" if value is None else f"{value * factor:,.{digits}f}"


def _tiles(result: Mapping[str, Any]) -> str:
    tiles = [
        ("completed", str(result["completed"])),
        ("failed", str(result["failed"])),
        ("incomplete", str(result["incomplete"])),
        ("duration", f"{number(result['duration_s'], 1)} s"),
        ("tokens/s", number(result["throughput_tok_s"], 1)),
        ("requests/s", number(result["throughput_req_s"])),
        ("TTFT p99", f"{number(result['ttft_s']['p99'])} s"),
        (f"QoE below {SLO_QOE}", str(result["slo_violations"])),
    ]
    if result["interrupted"]:
        tiles.insert(3, ("interrupted", str(result["interrupted"])))
    if result["goodput_req_s"] is not None:
        bounds = " ".join(
            f"{name}:{bound:g}" for name, bound in result["config"]["goodput"].items()
        )
        tiles.append((f"goodput/s ({bounds})", number(result["goodput_req_s"])))
    if result["accuracy"] is not None:
        tiles.append(("answered correctly", f"{result['accuracy']:.0%}"))
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b>{escape(name)}</div>' for name, value in tiles
    )
    return f'<div class="tiles">{shown}</div>'


def _notes(result: Mapping[str, Any]) -> str:
    kept_up = result["generator"]["kept_up"]
    lines = list(generator_lines(result))
    if kept_up:
        lines.append(f"It kept up: both are below {LATE_S * 1000:g} ms.")
    if result["turns_not_sent"]:
        lines.append(f"Turns not sent, because an earlier turn failed: {result['turns_not_sent']}.")
    shown = "".join(f"<p>{escape(line[0].upper() + line[1:])}</p>" for line in lines)
    return f'<div class="note{"" if kept_up else " warning"}">{shown}</div>'


def _metrics(result: Mapping[str, Any]) -> str:
    columns = list(result["ttft_s"])
    rows = [
        [label, *(number(result[key][column], digits, factor) for column in columns)]
        for label, key, factor, digits in METRICS
    ]
    return table(["", *columns], rows)


def _tasks(result: Mapping[str, Any]) -> str:
    agents = result.get("agents")
    if not agents:
        return ""
    columns = list(agents["e2e_s"])
    rows = [
        [
            label,
            *(number(agents[AGENT_METRICS[name]][column], digits, factor) for column in columns),
        ]
        for name, (label, factor, digits) in AGENT_LABELS.items()
    ]
    line = agents_line(agents)
    return f"<h2>Tasks of agents</h2><p>{escape(line[0].upper() + line[1:])}.</p>" + table(
        ["", *columns], rows
    )


def _plots(result: Mapping[str, Any]) -> str:
    # They import matplotlib, which takes a second.
    from bench.load.report import agent_plots
    from bench.load.report import plots as load_plots

    alone = {"this run": result}
    plots: list[tuple[str, str, Callable[[], str | None]]] = [
        (
            "TTFT by length of the reasoning",
            "From sending a request to the first token of its answer. All bins hold the same "
            "number of requests.",
            lambda: load_plots.ttft_by_reasoning(result),
        ),
        (
            "Distributions",
            "Share of the completed and incomplete requests that took at most this time.",
            lambda: load_plots.cdfs(alone),
        ),
        (
            "Quality of experience",
            "Share of the requests with at most this score; failed requests have 0.",
            lambda: load_plots.qoe(alone),
        ),
        (
            "Gaps between tokens",
            "Between successive deltas of an answer, as they arrived here.",
            lambda: load_plots.token_gaps(alone),
        ),
        (
            "A reader's buffer",
            "Tokens that the engine had generated, that were released, and that a steady reader "
            "reads. Where the reading curve is above the released tokens, the reader had to wait.",
            lambda: load_plots.reader_buffers(result),
        ),
        (
            "Phases of requests",
            "At most 48 requests, evenly chosen. If the server does not report when generation "
            "ended, answering includes reading.",
            lambda: load_plots.timeline(result),
        ),
    ]
    if result.get("agents"):
        plots.insert(
            0,
            (
                "Turns and tools",
                "At most 48 tasks, evenly chosen, each from its first request to its last answer.",
                lambda: agent_plots.tasks(result),
            ),
        )
    if result["by_turn"]:
        plots.append(
            (
                "By turn of the conversation",
                "A later turn carries the conversation so far.",
                lambda: load_plots.by_turn(result),
            )
        )
    return "\n".join(figure(title, caption, draw()) for title, caption, draw in plots)


def _reasons(title: str, counted: Mapping[str, int]) -> str:
    if not counted:
        return ""
    rows = [(str(count), reason) for reason, count in counted.items()]
    return f"<h2>{escape(title)}</h2>" + table(("requests", "reason"), rows, text=True)


def _flag(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}:{bound:g}" for name, bound in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
