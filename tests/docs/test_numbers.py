"""Numbers in the prose of the pages are those of the settings and constants of the code.

Each line has a page, a pattern for the words around the number, and the number in the code.
Defaults in ``config.toml`` have a test of their own (``tests/gateway/test_config.py``).
"""

from __future__ import annotations

import re

import pytest

from bench.load import measure, runner
from bench.load.report import terminal
from bench.paper import sections
from bench.paper.cases import LOADS, blocks, sustained
from bench.simulator import defaults
from bench.simulator.defaults import INSTANCES
from bench.validation import machine_speed, regimes
from gateway import config, store
from gateway.api import websocket
from gateway.routing import worker_link
from tests.docs.support.pages import text_of
from workers import step_log
from workers.emulation import device_clock
from workers.emulation.profile import load_profile
from workers.kv import claims
from workers.policy import resume_cost
from workers.policy.settings import PolicySettings
from workers.requests import gateways
from workers.settings import WorkerSettings

POLICY = PolicySettings()
DEFAULTS = config.Config()
PAPER = load_profile(defaults.PROFILE)
HELD_S = WorkerSettings.__struct_defaults__[
    WorkerSettings.__struct_fields__.index("kv_held_s")
    - (len(WorkerSettings.__struct_fields__) - len(WorkerSettings.__struct_defaults__))
]

API = "docs/reference/api.md"
LOAD = "docs/howto/generate-load.md"
MEMORY = "docs/explanation/memory.md"
METRICS = "docs/reference/metrics.md"
MIGRATION = "docs/explanation/migration.md"
POLICIES = "docs/explanation/policies.md"
REPRODUCTION = "docs/results/reproduction.md"
VALIDATION = "docs/results/validation.md"

STATED = [
    (POLICIES, r"answers that have waited ([\d.]+) s", POLICY.starvation_s),
    (POLICIES, r"preempted (\d+) times\s+keeps its memory", POLICY.max_preemptions),
    (POLICIES, r"Once reasoning has waited ([\d.]+) s, it counts as fresh", POLICY.starvation_s),
    (POLICIES, r"generates at least (\d+) tokens before", POLICY.min_run_tokens),
    (POLICIES, r"At most (\d+) requests are preempted", POLICY.max_preemptions_per_step),
    (POLICIES, r"only every\s+([\d.]+) s \(`review_s`", POLICY.review_s),
    (POLICIES, r"the interval is ([\d.]+) ms per", POLICY.review_s_per_request * 1e3),
    (POLICIES, r"Even then, ([\d.]+) ms per", POLICY.review_least_s_per_request * 1e3),
    (POLICIES, r"treated as one read at ([\d.]+)\s+tokens/s", 1 / POLICY.tau_s),
    (POLICIES, r"a request for the next ([\d.]+) s gains", POLICY.qoe_horizon_s),
    (MEMORY, r"through the latest (\d+)\s+samples", resume_cost._WINDOW),
    (MEMORY, r"more than (\d+)\s+tokens waiting it pauses", gateways._HIGH_WATER),
    (MEMORY, r"resumes below (\d+)\.", gateways._LOW_WATER),
    (MEMORY, r"One frame is at most (\d+) MiB", worker_link.MAX_FRAME_BYTES / 2**20),
    (MEMORY, r"With (\d+) MiB waiting for one worker", worker_link._FULL_BYTES / 2**20),
    (MEMORY, r"With (\d+) MiB waiting\s+the link ends", worker_link._MAX_UNSENT_BYTES / 2**20),
    (MEMORY, r"Up to (\d+) MiB may wait for it", store.MAX_QUEUED_BYTES / 2**20),
    (MIGRATION, r"`kv_held_s`, (\d+) s", HELD_S),
    (MIGRATION, r"no answer within (\d+) s", claims._ANSWER_S),
    ("docs/results/benchmarks.md", r"waits ([\d.]+) s for the next decision", POLICY.review_s),
    ("docs/results/benchmarks.md", r"with a QoE below ([\d.]*\d)", DEFAULTS.pacing.slo_qoe),
    (METRICS, r"After (\d+) s it is freed unread", HELD_S),
    (METRICS, r"below ([\d.]+) the instance is slower", 1 - device_clock._STARVING),
    (API, r"server pings every (\d+) s", websocket._PING_INTERVAL_S),
    (API, r'"pacing": {"tpot_s": ([\d.]+)', DEFAULTS.pacing.tpot_s),
    (API, r'"pacing": {[^}]*"ttfat_s": ([\d.]+)', DEFAULTS.pacing.ttfat_s),
    (LOAD, r"asks itself every (\d+) ms", runner.LAG_PROBE_S * 1e3),
    (LOAD, r"beyond (\d+) ms \(p99\)", measure.LATE_S * 1e3),
    (LOAD, r"more than (\d+)% of a core", terminal.BUSY_SHARE * 100),
    (REPRODUCTION, r"([\d,]+) tokens of KV each", PAPER.kv.blocks * PAPER.kv.block_size),
    (REPRODUCTION, r"(\d+) Gb/s between them", PAPER.links.network_bytes_per_s * 8 / 1e9),
    (REPRODUCTION, r"Requests of more than ([\d,]+) tokens are left out", defaults.LONGEST),
    (REPRODUCTION, r"quantum of (\d+) tokens", POLICY.quantum_tokens),
    (REPRODUCTION, r"demotes after (\d+)", POLICY.demotion_tokens),
    (REPRODUCTION, r"`low` is ([\d.]+),", LOADS["low"]),
    (REPRODUCTION, r"`medium` ([\d.]+),", LOADS["medium"]),
    (REPRODUCTION, r"`peak` ([\d.]+);", LOADS["high"]),
    (REPRODUCTION, r"rate of a load of ([\d.]+), for", sections._CHARACTERISED),
    (REPRODUCTION, r"above ([\d,]+) tokens are left out", sections._LONGEST_CHARACTERISED),
    (VALIDATION, r"of (\d+) MiB at most", step_log._MOST_BYTES / 2**20),
    (VALIDATION, r"exits with 1 above ([\d.]+)%", regimes.THRESHOLDS["e2e"] * 100),
    (VALIDATION, r"above 1.6%, (\d+)%", regimes.THRESHOLDS["ttft_mean"] * 100),
    (VALIDATION, r"above 1.6%, 12% and (\d+)%", regimes.THRESHOLDS["tpot"] * 100),
    (VALIDATION, r"slowdowns, of ([\d.]+) s each", machine_speed.WINDOW_S),
    ("README.md", r"http://127.0.0.1:(\d+)\b", DEFAULTS.server.port),
]


def on_one_line(page: str) -> str:
    """The page's text, however its lines are wrapped."""
    return " ".join(text_of(page).split())


@pytest.mark.parametrize(("page", "around", "number"), STATED)
def test_a_number_is_that_of_the_code(page: str, around: str, number: float) -> None:
    numbers = re.findall(around, on_one_line(page))
    assert numbers, f"{page}: nothing like /{around}/"
    for text in numbers:
        assert float(text.replace(",", "")) == pytest.approx(number), f"{page}: /{around}/"


def test_the_rates_of_the_reproduction_are_computed() -> None:
    """The page rounds them to a decimal."""
    rates = re.search(
        r"comes at ([\d.]+), ([\d.]+) and ([\d.]+) requests per second,"
        r" AlpacaEval at ([\d.]+), ([\d.]+) and ([\d.]+)\.",
        on_one_line(REPRODUCTION),
    )
    assert rates is not None
    computed = [
        sustained(workload, load, INSTANCES, blocks(1.0)).rate
        for workload in ("arena-hard", "alpacaeval")
        for load in LOADS.values()
    ]
    assert [float(rate) for rate in rates.groups()] == pytest.approx(computed, abs=0.0501)
