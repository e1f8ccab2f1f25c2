"""Report of the reproduction: tables for the terminal, and those of its page.

Only the text between ``<!-- begin NAME -->`` and its end mark is replaced, and the images. Parts
that were not run keep the results that the page already shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.paper.cases import LOADS, WORKLOADS
from bench.paper.claims import claims, percent
from bench.paper.results import bin_name
from bench.paper.sections import MIXES, SWEPT
from bench.reporting.errors import BenchmarkError
from bench.simulator.results import ORACLE, policy_title

Results = Mapping[str, Any]
Rows = list[Sequence[str]]  # the first one is the head

PAGE = "reproduction.md"
_IMAGES = "images"
_SHORTEST = bin_name(0)
_SCOPES = {
    "full": "full scope: all of the KV memory, {all} seeds, {sweeps} for the sweeps.",
    "quick": "**quick** scope: half of the KV memory, one seed, windows of 15 s. It shows that "
    "everything runs, and the trends; it is too small for results.",
}


def tables(results: Results) -> Iterator[Table]:
    """Tables of all parts that were run, for the terminal."""
    quick = " (quick: trends only)" if results["scope"] == "quick" else ""
    for title, rows in _blocks(results).items():
        head, *body = rows
        table = Table(title=f"{_TITLES[title]}{quick}")
        for column in head:
            table.add_column(column)
        for row in body:
            table.add_row(*row)
        yield table


def _scope(results: Results) -> str:
    return _SCOPES[results["scope"]].format(**results["seeds"])


def prepare_docs(folder: Path) -> None:
    """Make sure that the page exists, can be written and has all marks.

    :raises BenchmarkError: naming the page and what is wrong with it.
    """
    page = folder / PAGE
    try:
        text = page.read_text(encoding="utf-8")
        with page.open("a"):
            pass
        (folder / _IMAGES).mkdir(exist_ok=True)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise BenchmarkError(f"--docs {page}: {reason}") from error
    for name in ("scope", *_TITLES):
        _place(text, name, page)


def renew(folder: Path, results: Results) -> None:
    """Replace tables and images.

    :raises BenchmarkError: as `prepare_docs`.
    """
    page = folder / PAGE
    text = page.read_text(encoding="utf-8")
    blocks = {name: _markdown(rows) for name, rows in _blocks(results).items()}
    for name, block in {"scope": _scope(results), **blocks}.items():
        begin, end = _place(text, name, page)
        text = f"{text[:begin]}\n{block}\n{text[end:]}"
    page.write_text(text, encoding="utf-8")
    _draw(folder / _IMAGES, results)


def _place(text: str, name: str, page: Path) -> tuple[int, int]:
    opening, closing = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    begin, end = text.find(opening), text.find(closing)
    if begin < 0 or end < begin:
        raise BenchmarkError(f"--docs {page}: {opening} and {closing} are missing")
    return begin + len(opening), end


def _markdown(rows: Rows) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, f"|{' --- |' * len(rows[0])}")
    return "\n".join(lines)


# ---- tables


_TITLES = {
    "claims": "Claims of the paper, our results, and why they differ",
    "evaluation": "Eight instances",
    "slack": "slack against unlimited memory at high load",
    "ablations": "Where requests answer",
    "baselines": "Other schedulers for streamed text at high load",
    "instances": "More and fewer instances at the same load per instance",
}


def _blocks(results: Results) -> dict[str, Rows]:
    """Rows of each table whose sections were run."""
    made: dict[str, Callable[[Results], Rows]] = {
        "claims": _claims,
        "evaluation": _evaluation,
        "slack": _slack,
        "ablations": _ablations,
        "baselines": _baselines,
        "instances": _instances,
    }
    rows = {name: make(results) for name, make in made.items()}
    return {name: table for name, table in rows.items() if len(table) > 1}


def _claims(results: Results) -> Rows:
    return [
        ("claim", "paper", "here", "why they differ"),
        *((c.what, c.paper, c.here, c.why) for c in claims(results)),
    ]


def _evaluation(results: Results) -> Rows:
    rows: Rows = [
        "workload|load|policy|TTFT p50, s|p99, s|QoE < 0.95|tokens/s|preemptions per request".split(
            "|"
        )
    ]
    for workload in (*WORKLOADS, *MIXES):
        for load, by_policy in results.get(workload, {}).items():
            rows += [_policy_row(workload, load, p, result) for p, result in by_policy.items()]
    return rows


def _policy_row(workload: str, load: str, policy: str, result: Results) -> Sequence[str]:
    return (
        workload,
        load,
        policy_title(policy, result),
        f"{result['ttft_s']['p50']:.1f}",
        f"{result['ttft_s']['p99']:.1f}",
        percent(result["slo_violations"]),
        f"{result['throughput_tok_s']:.0f}",
        f"{result['preemptions_per_request']:.2f}",
    )


def _slack(results: Results) -> Rows:
    rows: Rows = [("workload", "reasoning tokens", "requests", "p99 TTFT / oracle's", "QoE < 0.95")]
    for workload, load in {**dict.fromkeys(WORKLOADS, "high"), **MIXES}.items():
        result = results.get(workload, {}).get(load, {}).get("slack")
        for name, ratio in (result or {}).get("ttft_p99_to_oracle", {}).items():
            count = str(result["requests_by_bin"][name])
            rows.append((workload, name, count, f"{ratio:.3f}", percent(result["slo_violations"])))
    return rows


def _ablations(results: Results) -> Rows:
    rows: Rows = [
        "workload|policy|boundary to answer p99, s|QoE < 0.95|moves per run|e2e p99, s".split("|")
    ]
    for workload, ablated in results["experiments"].get("ablations", {}).items():
        high = results.get(workload, {}).get("high", {})
        shown = {name: high[name] for name in ("pascal", "slack") if name in high}
        for policy, result in {**shown, **ablated}.items():
            rows.append(
                (
                    workload,
                    policy.replace("_", " "),
                    f"{result['boundary_blocking_p99_s']:.2f}",
                    percent(result["slo_violations"]),
                    f"{result['migrations']:.0f}",
                    f"{result['e2e_s']['p99']:.1f}",
                )
            )
    return rows


def _baselines(results: Results) -> Rows:
    rows: Rows = [
        (
            "workload",
            "policy",
            f"TTFT p99 / oracle's, {_SHORTEST}",
            "mean TTFT, s",
            "QoE < 0.95",
            "tokens/s",
            "preemptions per request",
        )
    ]
    for workload, by_policy in results["experiments"].get("baselines", {}).items():
        for policy, result in by_policy.items():
            ratio = result["ttft_p99_to_oracle"].get(_SHORTEST)
            rows.append(
                (
                    workload,
                    policy_title(policy, result),
                    "-" if ratio is None else f"{ratio:.2f}",
                    f"{result['ttft_s']['mean']:.1f}",
                    percent(result["slo_violations"]),
                    f"{result['throughput_tok_s']:.0f}",
                    f"{result['preemptions_per_request']:.2f}",
                )
            )
    return rows


def _instances(results: Results) -> Rows:
    by_policy = results["experiments"].get("instances", {})
    rows: Rows = [("instances", "policy", "TTFT p99, s", "QoE < 0.95", "tokens/s")]
    for policy, by_count in by_policy.items():
        rows += [
            (
                count,
                policy_title(policy, result),
                f"{result['ttft_s']['p99']:.1f}",
                percent(result["slo_violations"]),
                f"{result['throughput_tok_s']:.0f}",
            )
            for count, result in by_count.items()
        ]
    return [rows[0], *sorted(rows[1:], key=lambda row: int(row[0]))]


# ---- images


def _draw(folder: Path, results: Results) -> None:
    """Draw the images whose sections were run, and always Figures 2 and 3, which take no time."""
    from bench.paper import figures_2_to_5, plots
    from bench.paper.figure_2 import timelines
    from bench.paper.figure_3 import stories

    lines = {policy: timelines(policy) for policy in (ORACLE, "fcfs", "rr")}
    figures_2_to_5.figure_2(lines, folder / "paper-figure-2.png")
    figures_2_to_5.figure_3(stories(), folder / "paper-figure-3.png")
    experiments = results["experiments"]
    if characterised := experiments.get("characterisation"):
        figures_2_to_5.figure_4(characterised, folder / "paper-figure-4.png")
        figures_2_to_5.figure_5(characterised, folder / "paper-figure-5.png")
    evaluated = all(workload in results for workload in WORKLOADS)
    if evaluated and all(set(results[workload]) == set(LOADS) for workload in WORKLOADS):
        plots.tail_ttft(results, WORKLOADS, folder / "paper-ttft.png")
        plots.readers(results, WORKLOADS, folder / "paper-readers.png")
        if "ablations" in experiments:
            plots.moves(results, SWEPT, folder / "paper-moves.png")
    if all(name in experiments for name in ("quantum", "demotion", "load")):
        plots.sweeps(results, folder / "paper-sweeps.png")
    if "instances" in experiments:
        plots.instances(results, folder / "paper-instances.png")
