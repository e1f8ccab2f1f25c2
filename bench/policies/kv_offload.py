"""Savings of KV offload on a real engine: tokens that are computed again, with it and without.

``python -m bench.policies.kv_offload [--json FILE]`` runs the same greedy requests several times.
The first run has enough KV memory. The others run all requests at once, with too little memory,
under every policy. Each policy recomputes the KV of preempted requests, reloads it, or follows the
cost model. Tokens computed beyond those of the first run are *extra*;
`offload_extra_tokens_ratio` is extra with reload / extra with recompute.

Prefix caching is off, unless ``--prefix-caching`` is given. With and without offload, it finds
blocks of preempted requests that are still in memory, so its savings are not those of offload.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.policies.engine_process import ROOT, EngineProcess, Send
from workers.policy.resume_cost import RESUMES
from workers.policy.settings import POLICIES
from workers.settings import WorkerSettings

_REQUESTS = 14
_OUTPUT_TOKENS = 240
_FIT = 3  # requests at a time that fit into memory

SETTINGS = WorkerSettings(
    instance_id="bench",
    listen="unix:/dev/null",
    model=str(ROOT / "models" / "tiny-reasoner"),
    served_model_name="tiny",
    # Small numbers, so that requests of a few hundred tokens meet every case.
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
    kv_offload_gib=0.0625,  # enough for all requests
)


def measure(prefix_caching: bool = False) -> dict[str, Any]:
    """`results`, measured in a process of its own; takes about a minute.

    :raises ProcessFailed: if the process failed.
    """
    with EngineProcess("the offload measurement", __name__) as process:
        process.send(prefix_caching)
        return process.receive(dict[str, Any])


def serve(messages: Iterator[bytes], send: Send) -> None:
    """In that process: the first message says whether to use vLLM's prefix cache."""
    send(results(msgspec.json.decode(next(messages), type=bool)))


def results(prefix_caching: bool) -> dict[str, Any]:
    """Measure in this process, which must not have imported vLLM.

    :return: `unpressured_tokens`, computed with enough memory. `policies` holds, for each policy
        and way to resume, the `preemptions`, the `extra`, `reloaded` and `recomputed` tokens, and
        the number of `different` outputs. `ratio` holds the ratio of each policy, and
        `offload_extra_tokens_ratio` that of all.
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
            policies[policy][resume] = engine.run().compared_with(reference)
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
    """Print the results as one line of JSON, or write them to a file."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.policies.kv_offload", description=__doc__
    )
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--prefix-caching", action="store_true", help="with vLLM's prefix cache")
    arguments = parser.parse_args()
    measured = results(arguments.prefix_caching)
    if arguments.json is None:
        print(json.dumps(measured))
    else:
        arguments.json.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
