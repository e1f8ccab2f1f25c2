"""The paper's claims, our results for them, and why the two differ.

Pure. The paper's numbers come from its evaluation ("Results" and "Characterisation"). A reason is
what the setting explains by itself, or what one of our experiments shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.paper.cases import WORKLOADS
from bench.simulator.defaults import PROFILE
from bench.simulator.results import ORACLE
from workers.emulation.profile import load_profile

Results = Mapping[str, Any]

_NONE = "-"
_RATES = "The paper's rates are not published. See the sweep of the load."
_CROWD = "Algorithm 2 fills the instance that has the fewest reasoning requests."
_HEADROOM = "An experiment: `adaptive` considers only instances with room."
_MOVED_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of the table."""

    what: str
    paper: str
    here: str  # "-" if a section that it needs was not run
    why: str


@dataclass(frozen=True, slots=True)
class _Line:
    what: str
    paper: str
    value: Callable[[Results], Any]
    form: Callable[[Any], str]
    why: str


def claims(results: Results) -> list[Claim]:
    """All claims in the order of the paper."""
    return [Claim(line.what, line.paper, _here(line, results), line.why) for line in _LINES]


def _here(line: _Line, results: Results) -> str:
    """The result as text; "-" if its section was not run."""
    try:
        value = line.value(results)
    except KeyError:
        return _NONE
    return _NONE if value is None else line.form(value)


def percent(share: float) -> str:
    """A share as text, such as ``7.45%``."""
    return f"{100 * share:.2f}%"


def _whole(share: float) -> str:
    return f"{100 * share:.0f}%"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s"


def _signed(value: float) -> str:
    return f"{value:+.2f} s"


def _times(value: float) -> str:
    return f"{value:.2f}x"


def _headline(*path: str) -> Callable[[Results], Any]:
    def value_of(results: Results) -> Any:
        value: Any = results["headlines"]
        for part in path:
            value = value[part]
        return value

    return value_of


def _inflation(policy: str, *, longest: bool) -> Callable[[Results], Any]:
    """Inflation of the shortest bin, or of the worst of the other bins."""

    def value_of(results: Results) -> Any:
        bins = list(results["experiments"]["inflation"][policy].values())
        if not longest:
            return bins[0] if bins else None
        return max(bins[1:], default=None)

    return value_of


def _swept(other: str) -> Callable[[Results], Any]:
    """Reduction in the best bin at any load of the sweep."""

    def value_of(results: Results) -> Any:
        best = results["experiments"]["load_reductions"][other].values()
        return max((value for value in best if value is not None), default=None)

    return value_of


def _roomy(value: Callable[[Results], Any]) -> Callable[[Results], Any]:
    """A value of `pascal` with headroom at high load, for the worse workload."""

    def value_of(results: Results) -> Any:
        ablations = results["experiments"]["ablations"].values()
        values = [value(by_name["adaptive_with_headroom"]) for by_name in ablations]
        return max((value for value in values if value is not None), default=None)

    return value_of


def _low_load(results: Results) -> float:
    """Largest relative difference of a mean TTFT from the oracle's at low load, both workloads."""
    means = [
        {policy: result["ttft_s"]["mean"] for policy, result in results[workload]["low"].items()}
        for workload in WORKLOADS
    ]
    return max(
        abs(float(by_policy[policy] / by_policy[ORACLE]) - 1)
        for by_policy in means
        for policy in ("fcfs", "rr", "pascal")
    )


def _transfer_ms(results: Results) -> float:
    profile = load_profile(PROFILE)
    size = _MOVED_TOKENS * profile.kv.bytes_per_token
    return 1e3 * size / profile.links.network_bytes_per_s


_LINES = (
    _Line(
        "mean TTFT of short reasoning under FCFS / oracle's",
        "up to 5.14x",
        _inflation("fcfs", longest=False),
        _times,
        "It grows with the length of the overload. Our instance starts empty.",
    ),
    _Line(
        "mean TTFT of long reasoning under RR / oracle's",
        "up to 1.75x",
        _inflation("rr", longest=True),
        _times,
        "As above. The worst bin except the first.",
    ),
    _Line(
        "reduction of tail TTFT against FCFS, AlpacaEval2.0, best bin",
        "up to 61%",
        _headline("fcfs_reduction", "alpacaeval"),
        _whole,
        _RATES,
    ),
    _Line(
        "reduction of tail TTFT against FCFS, Arena-Hard",
        "up to 72%",
        _headline("fcfs_reduction", "arena-hard"),
        _whole,
        _RATES,
    ),
    _Line(
        "reduction of tail TTFT against FCFS, Arena-Hard, any load of the sweep",
        "up to 72%",
        _swept("fcfs"),
        _whole,
        "Under FCFS, short requests wait longer as the load grows.",
    ),
    _Line(
        "reduction of tail TTFT against RR, AlpacaEval2.0",
        "up to 33%",
        _headline("rr_reduction", "alpacaeval"),
        _whole,
        _RATES,
    ),
    _Line(
        "reduction of tail TTFT against RR, Arena-Hard",
        "up to 29%",
        _headline("rr_reduction", "arena-hard"),
        _whole,
        _RATES,
    ),
    _Line(
        "reduction of tail TTFT against RR, Arena-Hard, any load of the sweep",
        "up to 29%",
        _swept("rr"),
        _whole,
        "More load does not increase it.",
    ),
    _Line(
        "largest increase of one request's TTFT against FCFS",
        "+13.30 s",
        _headline("worst_request_s", "fcfs"),
        _signed,
        "The worst request of all seeds. Which request is evicted is random.",
    ),
    _Line(
        "largest increase of one request's TTFT against RR",
        "+8.25 s",
        _headline("worst_request_s", "rr"),
        _signed,
        "As above.",
    ),
    _Line(
        "throughput / FCFS's",
        "within 3%",
        _headline("throughput_ratio"),
        _times,
        "Tokens in the window. The worse workload at high load.",
    ),
    _Line(
        "SLO violations (QoE below 0.95), PASCAL",
        "0.69%",
        _headline("slo_violations_pascal"),
        percent,
        f"The worse workload at high load. {_CROWD} There, the newest requests of the low queue "
        "are evicted first.",
    ),
    _Line(
        "SLO violations, PASCAL with headroom",
        "0.69%",
        _roomy(lambda result: result["slo_violations"]),
        percent,
        _HEADROOM,
    ),
    _Line(
        "SLO violations, NonAdaptive",
        "7.45%",
        _headline("non_adaptive_slo_violations"),
        percent,
        "Arena-Hard at high load. Compare with headroom.",
    ),
    _Line(
        "end-to-end latency, NonAdaptive against PASCAL: median",
        "+20.1%",
        _headline("non_adaptive_e2e", "median"),
        percent,
        "While a moved request waits for memory, its source still holds its KV.",
    ),
    _Line(
        "end-to-end latency, NonAdaptive against PASCAL: tail",
        "+9.7%",
        _headline("non_adaptive_e2e", "p99"),
        percent,
        "As above.",
    ),
    _Line(
        "wait at the boundary without migration, p99",
        "27.39 s",
        _headline("no_migration_blocking_p99_s"),
        _seconds,
        "Waiting time grows with the overload, as the sweep shows.",
    ),
    _Line(
        "KV migration, p99, AlpacaEval2.0",
        "0.14 s",
        _headline("transfers_p99_s", "alpacaeval"),
        _seconds,
        f"It includes the wait for links; transfers do not share a link. {_CROWD}",
    ),
    _Line(
        "KV migration, p99, Arena-Hard",
        "0.25 s",
        _headline("transfers_p99_s", "arena-hard"),
        _seconds,
        "As above.",
    ),
    _Line(
        "KV migration, p99, with headroom, the worse workload",
        "0.25 s",
        _roomy(lambda result: result["transfers_s"]["p99"]),
        _seconds,
        _HEADROOM,
    ),
    _Line(
        f"time to move the KV of {_MOVED_TOKENS} tokens",
        "about 40 ms",
        _transfer_ms,
        lambda ms: f"{ms:.0f} ms",
        "256 KiB per token at 100 Gb/s.",
    ),
    _Line(
        "largest difference of mean TTFT from the oracle's at low load",
        "0",
        _low_load,
        percent,
        "Only PASCAL moves requests.",
    ),
)
