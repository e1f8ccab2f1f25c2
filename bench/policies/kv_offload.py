"""What KV offload saves on a real engine: tokens computed again, with it and without.

``python -m bench.policies.kv_offload [--json FILE]`` runs the same greedy requests with enough KV
memory, and then all at once, with too little, under every policy: recomputing what preempted
requests lose, reloading it, and as the cost model says. Tokens computed beyond those of the first
run are *extra*; `offload_extra_tokens_ratio` is extra with reload / extra with recompute.

Prefix caching is off unless asked for with ``--prefix-caching``. It finds blocks of a preempted
request that nobody has needed yet, with offload and without: what it saves is not offload's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from bench.reporting.errors import BenchmarkError
from bench.reporting.vllm_environment import one_threaded
from workers.policy.resume_cost import RESUMES
from workers.policy.settings import POLICIES
from workers.settings import WorkerSettings

_ROOT = Path(__file__).parents[2]
_REQUESTS = 14
_OUTPUT_TOKENS = 240
_FIT = 3  # requests at a time, without pressure

SETTINGS = WorkerSettings(
    instance_id="bench",
    listen="unix:/dev/null",
    model=str(_ROOT / "models" / "tiny-reasoner"),
    served_model_name="tiny",
    # So small that requests of some hundred tokens go through everything.
    policy="slack",
    quantum_tokens=24,
    demotion_tokens=80,
    low_water_s=0.2,
    high_water_s=0.6,
    dtype="float32",
    max_model_len=320,
    max_num_seqs=8,
    kv_blocks=30,
    block_size=32,
    kv_offload_gib=0.0625,  # enough for all
)


class OffloadError(BenchmarkError):
    """The measurement failed; the message ends with what its process said last."""


def measure(prefix_caching: bool = False) -> dict[str, Any]:
    """Measure in a process of its own; about a minute. The result is that of `figures`.

    :raises OffloadError: if the process failed.
    """
    command = [sys.executable, "-m", "bench.policies.kv_offload"]
    command += ["--prefix-caching"] if prefix_caching else []
    done = subprocess.run(
        command, cwd=_ROOT, env=one_threaded(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OffloadError(f"the offload measurement failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def figures(prefix_caching: bool) -> dict[str, Any]:
    """Run everything in this process, which must not have imported vLLM.

    :return: `unpressured_tokens` computed without pressure; `policies`, for each and each way to
        resume the `preemptions`, `extra`, `reloaded` and `recomputed` tokens and how many outputs
        are `different`; the `ratio` of each policy, and `offload_extra_tokens_ratio` of all.
    """
    from bench.policies.small_memory_engine import Load, SmallMemoryEngine

    settings = msgspec.structs.replace(
        SETTINGS, engine_args={"enable_prefix_caching": prefix_caching}
    )
    engine = SmallMemoryEngine(settings, Load(_REQUESTS, _OUTPUT_TOKENS))
    engine.use("fcfs", "recompute")
    reference = engine.run(_FIT)
    policies: dict[str, dict[str, dict[str, int]]] = {}
    for policy in POLICIES:
        policies[policy] = {}
        for resume in RESUMES:
            engine.use(policy, resume)
            run = engine.run()
            policies[policy][resume] = {
                "preemptions": run.preemptions,
                "extra": run.computed_tokens - reference.computed_tokens,
                "reloaded": run.reloaded_tokens,
                "recomputed": run.recomputed_tokens,
                "different": sum(
                    a != b for a, b in zip(run.outputs, reference.outputs, strict=True)
                ),
            }
    extra = {
        resume: sum(policies[policy][resume]["extra"] for policy in POLICIES) for resume in RESUMES
    }
    return {
        "unpressured_tokens": reference.computed_tokens,
        "policies": policies,
        "ratio": {
            policy: round(runs["reload"]["extra"] / runs["recompute"]["extra"], 4)
            for policy, runs in policies.items()
        },
        "offload_extra_tokens_ratio": round(extra["reload"] / extra["recompute"], 4),
    }


def main() -> None:
    """Print the figures as one line of JSON, or write them to a file."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.policies.kv_offload", description=__doc__
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--prefix-caching", action="store_true", help="with vLLM's prefix cache")
    arguments = parser.parse_args()
    found = figures(arguments.prefix_caching)
    if arguments.json is None:
        print(json.dumps(found))
    else:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
