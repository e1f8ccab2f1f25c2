"""Numbers in the prose of the pages are those of the code, wherever a setting or constant has them.

Each line names a page, the words around the number, and where the code has it. Defaults in
``config.toml`` have a test of their own (``tests/gateway/test_config.py``).
"""

from __future__ import annotations

import re

import pytest

from bench.load import measure, runner
from bench.load.report import terminal
from bench.paper import cases, plan
from bench.paper.cases import INSTANCES, LOADS, blocks, sustained
from bench.validation import machine_speed, regimes
from gateway import config
from gateway.api import websocket
from tests.docs.pages import table, text_of
from workers import step_log
from workers.emulation import device_clock
from workers.emulation.profile import load_profile
from workers.kv import claims
from workers.policy import resume_cost
from workers.policy.settings import PolicySettings
from workers.settings import WorkerSettings

POLICY = PolicySettings()
DEFAULTS = config.Config()
PAPER = load_profile(cases.PROFILE)
HELD_S = WorkerSettings.__struct_defaults__[
    WorkerSettings.__struct_fields__.index("kv_held_s")
    - (len(WorkerSettings.__struct_fields__) - len(WorkerSettings.__struct_defaults__))
]

ARCHITECTURE = "docs/architecture.md"
REPRODUCTION = "docs/results/reproduction.md"
SIMULATOR = "docs/simulator.md"
VALIDATION = "docs/results/validation.md"

STATED = [
    (ARCHITECTURE, r"waited ([\d.]+) s\s+goes first", POLICY.starvation_s),
    (ARCHITECTURE, r"preempted (\d+) times\s+keeps its memory", POLICY.max_preemptions),
    (ARCHITECTURE, r"reasoning that has waited ([\d.]+) s counts as fresh", POLICY.starvation_s),
    (ARCHITECTURE, r"only every ([\d.]+) s \(`review_s`", POLICY.review_s),
    (ARCHITECTURE, r"requests every\s+([\d.]+) ms for each", POLICY.review_s_per_request * 1e3),
    (ARCHITECTURE, r"not before ([\d.]+) ms", POLICY.review_least_s_per_request * 1e3),
    (ARCHITECTURE, r"treated as one read at ([\d.]+) tokens/s", 1 / POLICY.tau_s),
    (ARCHITECTURE, r"through the latest (\d+) samples", resume_cost._WINDOW),
    (ARCHITECTURE, r"`kv_held_s`, (\d+) s", HELD_S),
    (ARCHITECTURE, r"hangs \(after (\d+) s\)", claims._ANSWER_S),
    ("docs/results/benchmarks.md", r"waits ([\d.]+) s for the next decision", POLICY.review_s),
    ("docs/results/benchmarks.md", r"below a QoE\s+of ([\d.]*\d)", DEFAULTS.pacing.slo_qoe),
    ("docs/reference/metrics.md", r"after (\d+) s it is freed unread", HELD_S),
    ("docs/reference/metrics.md", r"`pacing.ttfat_s`, ([\d.]+) s", DEFAULTS.pacing.ttfat_s),
    (
        "docs/reference/metrics.md",
        r"below ([\d.]+) the instance is slower",
        1 - device_clock._STARVING,
    ),
    ("docs/reference/api.md", r"server pings every (\d+) s", websocket._PING_INTERVAL_S),
    ("docs/reference/api.md", r'"tpot_s": ([\d.]+)', DEFAULTS.pacing.tpot_s),
    ("docs/reference/api.md", r'"ttfat_s": ([\d.]+)', DEFAULTS.pacing.ttfat_s),
    ("docs/load.md", r"asks itself every (\d+) ms", runner.LAG_PROBE_S * 1e3),
    ("docs/load.md", r"beyond (\d+) ms \(p99\)", measure.LATE_S * 1e3),
    ("docs/load.md", r"more than (\d+)% of a core", terminal.BUSY_SHARE * 100),
    (REPRODUCTION, r"([\d,]+) tokens of KV each", PAPER.kv.blocks * PAPER.kv.block_size),
    (REPRODUCTION, r"(\d+) Gb/s between them", PAPER.links.network_bytes_per_s * 8 / 1e9),
    (REPRODUCTION, r"Requests of more than ([\d,]+) tokens are left out", cases.LONGEST),
    (REPRODUCTION, r"quantum of (\d+) tokens", POLICY.quantum_tokens),
    (REPRODUCTION, r"demotes after (\d+)", POLICY.demotion_tokens),
    (REPRODUCTION, r"`low` is ([\d.]+),", LOADS["low"]),
    (REPRODUCTION, r"`medium` ([\d.]+),", LOADS["medium"]),
    (REPRODUCTION, r"`peak` ([\d.]+);", LOADS["high"]),
    (REPRODUCTION, r"rate of a load of ([\d.]+), for", plan._CHARACTERISED),
    (REPRODUCTION, r"above ([\d,]+) tokens are left out", plan._LONGEST_CHARACTERISED),
    (VALIDATION, r"of (\d+) MiB at most", step_log._MOST_BYTES / 2**20),
    (VALIDATION, r"exits with 1 above ([\d.]+)%", regimes.THRESHOLDS["e2e"] * 100),
    (VALIDATION, r"above 1.6%, (\d+)%", regimes.THRESHOLDS["ttft_mean"] * 100),
    (VALIDATION, r"above 1.6%, 12% and (\d+)%", regimes.THRESHOLDS["tpot"] * 100),
    (VALIDATION, r"slowdowns, of ([\d.]+) s each", machine_speed.WINDOW_S),
    ("README.md", r"http://127.0.0.1:(\d+)\b", DEFAULTS.server.port),
]


@pytest.mark.parametrize(("page", "around", "number"), STATED)
def test_a_number_is_that_of_the_code(page: str, around: str, number: float) -> None:
    found = re.findall(around, text_of(page))
    assert found, f"{page}: nothing like /{around}/"
    for text in found:
        assert float(text.replace(",", "")) == pytest.approx(number), f"{page}: /{around}/"


def test_the_rates_of_the_reproduction_are_computed() -> None:
    """The page rounds them to a decimal."""
    rates = re.search(
        r"comes at ([\d.]+), ([\d.]+) and ([\d.]+) requests per second,"
        r" AlpacaEval at ([\d.]+), ([\d.]+) and ([\d.]+)\.",
        text_of(REPRODUCTION),
    )
    assert rates is not None
    computed = [
        sustained(workload, load, INSTANCES, blocks(1.0)).rate
        for workload in ("arena-hard", "alpacaeval")
        for load in LOADS.values()
    ]
    assert [float(rate) for rate in rates.groups()] == pytest.approx(computed, abs=0.0501)


def test_the_table_of_computed_profiles_is_computed() -> None:
    for name, _, _, tokens, step_ms in table(SIMULATOR, "profile"):
        profile = load_profile(name.strip("`"))
        kv_tokens = profile.kv.tokens
        assert abs(int(tokens.replace(",", "")) - kv_tokens) < profile.kv.block_size, name
        step_s = profile.step.seconds(1, 0, 0, 0)
        assert float(step_ms.removesuffix(" ms")) == pytest.approx(step_s * 1e3, abs=0.051), name
