"""Cost of the scheduler plugin: CPU time of an engine step, compared with vLLM's own scheduler.

Drives vLLM's `Scheduler`, and `PhaseScheduler` under each policy, with a function as the model. All
run in one process and take short turns, so that other load on the machine affects them equally.
Every scheduler gets the same requests. Policies see modelled time, `STEP_S` per step, so that
readers read and buffers run dry as on a GPU. Measured is the thread's CPU time in ``schedule()``
and ``update_from_output()``, with statistics on, as in a server.

    running_32, running_256  that many requests run, with memory for all. Finished ones are replaced
    backlog                  256 run, with memory and slots for no more, and 1000 wait. vLLM takes
                             them in order of arrival; the policies swap requests
    sequences_*, channels_*  as running_*, with markers of three tokens, and with headers that name
                             a channel, instead of single tokens

Requests think and answer, and half of them call a tool.

Must not know how a policy decides. Does not measure latency.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from msgspec import to_builtins
from rich import box
from rich.console import Console
from rich.table import Table
from vllm.config import VllmConfig
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from bench.policies.scheduler_load import BLOCK, FORMATS, Load
from bench.reporting.vllm_environment import prepare_environment
from workers.engine.vllm_config import vllm_config
from workers.scheduler.plugin import CONFIG_KEY, PhaseScheduler
from workers.settings import WorkerSettings

MODEL: Final = Path(__file__).parents[2] / "models" / "tiny-reasoner"  # only its configuration
DEFAULT: Final = "default"
POLICIES: Final = ("slack", "pascal", "rr")  # the first is the one whose ratio is the result
STEP_S: Final = 0.03  # of a 32B model on an H100
STEP_TOKENS: Final = 8192  # vLLM's default for a server on an H100
# Steps of one scheduler before the next one continues. Fewer would cost extra time that no server
# pays, because after each change the interpreter specializes its code to the other class.
TURN_STEPS: Final = 25
# KV memory for each running request in the backlog, in tokens: a little more than they hold on
# average, so that memory and slots run out together.
KV_TOKENS: Final = 1024


@dataclass(frozen=True, slots=True)
class Case:
    """The number of requests at any time, and the limit of the plugin's cost."""

    name: str
    running: int
    waiting: int
    limit: float  # of the CPU time of a step, relative to vLLM's own scheduler
    format: str = "tokens"  # of `bench.policies.scheduler_load.FORMATS`

    @property
    def policies(self) -> tuple[str, ...]:
        """What is compared with vLLM's own scheduler; the first one's ratio is the result."""
        return POLICIES if self.format == "tokens" else POLICIES[:1]


CASES: Final = (
    Case("running_32", 32, 0, 1.05),
    Case("running_256", 256, 0, 1.05),
    Case("backlog", 256, 1000, 1.35),
    *(
        Case(f"{name}_{running}", running, 0, 1.05, name)
        for name in ("sequences", "channels")
        for running in (32, 256)
    ),
)


class _TimedScheduler(PhaseScheduler):
    """A `PhaseScheduler` on modelled time."""

    clock_s = 0.0

    def now(self) -> float:
        return self.clock_s


@dataclass(slots=True)
class Counts:
    """Sums over steps."""

    steps: int = 0
    schedule_s: float = 0.0  # CPU time
    update_s: float = 0.0
    computed: int = 0  # tokens, including prompts and recomputed ones
    generated: int = 0
    preemptions: int = 0

    @property
    def step_s(self) -> float:
        """CPU time per step."""
        return (self.schedule_s + self.update_s) / self.steps


class Side:
    """One scheduler and its own copy of the load."""

    def __init__(self, name: str, scheduler: Scheduler, load: Load, case: Case) -> None:
        self.name = name
        self.counts = Counts()
        self.scheduler = scheduler
        self._load = load
        self._requests = case.running + case.waiting
        for _ in range(case.running):
            scheduler.add_request(load.begun())
        self._replace()

    def step(self) -> None:
        """Run one engine step, and replace the requests that finish in it."""
        scheduler, counts = self.scheduler, self.counts
        if isinstance(scheduler, _TimedScheduler):
            scheduler.clock_s += STEP_S
        began = time.thread_time()
        scheduled = scheduler.schedule()
        counts.schedule_s += time.thread_time() - began
        names = list(scheduled.num_scheduled_tokens)
        output = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: index for index, name in enumerate(names)},
            sampled_token_ids=[self._sampled(scheduler.requests[name]) for name in names],
        )
        began = time.thread_time()
        scheduler.update_from_output(scheduled, output)
        counts.update_s += time.thread_time() - began
        counts.steps += 1
        counts.computed += scheduled.total_num_scheduled_tokens
        counts.generated += sum(map(len, output.sampled_token_ids))
        counts.preemptions += len(scheduled.preempted_req_ids or ())
        self._replace()

    def _sampled(self, request: Request) -> list[int]:
        return [] if request.is_prefill_chunk else [self._load.token(request)]

    def _replace(self) -> None:
        while len(self.scheduler.requests) < self._requests:
            self.scheduler.add_request(self._load.fresh())


def sides(case: Case) -> list[Side]:
    """vLLM's own scheduler, and the plugin with each policy."""
    settings = WorkerSettings(
        instance_id="overhead",
        listen="",
        model=str(MODEL),
        served_model_name="",
        max_num_seqs=case.running,
        max_num_batched_tokens=STEP_TOKENS,
        block_size=BLOCK,
    )
    config = vllm_config(settings)
    form = FORMATS[case.format]
    table = config.additional_config[CONFIG_KEY] | {"markers": to_builtins(form.markers)}
    result = []
    for name in (DEFAULT, *case.policies):
        kind = Scheduler if name == DEFAULT else _TimedScheduler
        config.additional_config = {
            CONFIG_KEY: table | ({} if name == DEFAULT else {"policy": name})
        }
        scheduler = _scheduler(kind, config, case)
        result.append(Side(name, scheduler, Load(0, form), case))
    return result


def _scheduler(kind: type[Scheduler], config: VllmConfig, case: Case) -> Scheduler:
    # Without a backlog there is memory for all requests at their longest.
    tokens = KV_TOKENS if case.waiting else config.model_config.max_model_len
    blocks = case.running * tokens // BLOCK + 1
    config.cache_config.num_gpu_blocks = blocks
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
    init_none_hash(sha256)
    return kind(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=StructuredOutputManager(config),
        block_size=BLOCK,
        hash_block_size=BLOCK,
        log_stats=True,
    )


def measure_overhead(quick: bool = False) -> dict[str, Any]:
    """Measure every case under every policy.

    :return: by the name of a case, the CPU time of a step under the first of `POLICIES`, as a
        multiple of that of vLLM's own scheduler. Under "details", by case and scheduler:
        ``ratio``, the median over the repeats, with ``ratio_p5`` and ``ratio_p95``;
        ``schedule_ratio``, that of ``schedule()`` alone; microseconds ``schedule_us`` and
        ``update_us``; tokens ``generated`` and ``computed``, the latter with prompts and recomputed
        ones; ``preemptions``. All of them are per step.
    """
    repeats, steps, warm_up = (10, 50, 150) if quick else (60, 50, 400)
    details = {case.name: measure_case(case, repeats, steps, warm_up) for case in CASES}
    ratios = {name: by_side[POLICIES[0]]["ratio"] for name, by_side in details.items()}
    return {**ratios, "details": details}


def measure_case(case: Case, repeats: int, steps: int, warm_up: int) -> dict[str, dict[str, float]]:
    """Results of one case by scheduler; see `measure_overhead`.

    :param steps: of each scheduler in a repeat, a multiple of `TURN_STEPS`.
    :param warm_up: steps before the first repeat.
    """
    contestants = sides(case)
    take_turns(contestants, warm_up)
    gc.collect()
    gc.freeze()  # as vLLM's engine does: the collector skips long-lived objects
    measured: list[list[Counts]] = []
    try:
        for _ in range(repeats):
            for side in contestants:
                side.counts = Counts()
            take_turns(contestants, steps)
            measured.append([side.counts for side in contestants])
    finally:
        gc.unfreeze()
    by_side = list(zip(*measured, strict=True))
    return {
        side.name: summary(counts, by_side[0])
        for side, counts in zip(contestants, by_side, strict=True)
    }


def take_turns(contestants: Sequence[Side], steps: int) -> None:
    """Run ``steps`` steps of each, `TURN_STEPS` at a time, and reverse the order every time."""
    order = list(contestants)
    for _ in range(steps // TURN_STEPS):
        for side in order:
            for _ in range(TURN_STEPS):
                side.step()
        order.reverse()


def summary(counts: Sequence[Counts], default: Sequence[Counts]) -> dict[str, float]:
    """Results of one scheduler, from its repeats and those of vLLM's own scheduler."""
    ratios = sorted(c.step_s / d.step_s for c, d in zip(counts, default, strict=True))
    steps = sum(c.steps for c in counts)
    return {
        "ratio": statistics.median(ratios),
        "ratio_p5": ratios[round(0.05 * (len(ratios) - 1))],
        "ratio_p95": ratios[round(0.95 * (len(ratios) - 1))],
        "schedule_ratio": statistics.median(
            c.schedule_s / d.schedule_s for c, d in zip(counts, default, strict=True)
        ),
        "schedule_us": 1e6 * statistics.median(c.schedule_s / c.steps for c in counts),
        "update_us": 1e6 * statistics.median(c.update_s / c.steps for c in counts),
        "generated": sum(c.generated for c in counts) / steps,
        "computed": sum(c.computed for c in counts) / steps,
        "preemptions": sum(c.preemptions for c in counts) / steps,
    }


def table(result: Mapping[str, Any]) -> Table:
    """The results of `measure_overhead` as a table for the terminal."""
    shown = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title="CPU time of schedule() + update_from_output() per step; tokens per step",
    )
    for name in ("case", "policy"):
        shown.add_column(name, no_wrap=True)
    for name in ("ratio", "p5-p95", "limit", "schedule", "us", "made", "computed", "swaps"):
        shown.add_column(name, justify="right", no_wrap=True)
    for case in CASES:
        for name, row in result["details"][case.name].items():
            shown.add_row(
                case.name,
                name,
                f"{row['ratio']:.3f}",
                f"{row['ratio_p5']:.2f}-{row['ratio_p95']:.2f}",
                f"{case.limit:.2f}" if name == case.policies[0] else "",
                f"{row['schedule_ratio']:.3f}",
                f"{row['schedule_us']:.0f}+{row['update_us']:.0f}",
                f"{row['generated']:.1f}",
                f"{row['computed']:.1f}",
                f"{row['preemptions']:.2f}",
                end_section=name == case.policies[-1],
            )
    return shown


def main() -> None:
    """``python -m bench.policies.scheduler_overhead [--quick] [--json FILE]``."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.policies.scheduler_overhead", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="fewer steps; takes a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    arguments = parser.parse_args()
    prepare_environment()
    result = measure_overhead(arguments.quick)
    Console().print(table(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
