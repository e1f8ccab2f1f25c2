"""One case of ``pascal simulate run``, in a process of its own: settings in, figures out."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from bench.simulator.chrome_trace import ChromeTrace
from bench.simulator.cluster import ClusterRun, Watch, Window, simulate
from bench.simulator.defaults import MODEL
from bench.simulator.parallel import report
from bench.simulator.results import ORACLE, PolicyRun
from bench.simulator.run.settings import Case, CaseRun, Settings, load_of
from bench.simulator.scheduler_factory import InstanceSettings
from bench.simulator.timeline import figures
from workers.emulation.device import DeviceProfile

_ORACLE_KV = 8  # times the device's memory: never full


def run_case(index: int, case: Case, settings: Settings, trace: Path | None) -> CaseRun:
    """Simulate it.

    :param index: of the case, for telling how far it is.
    :param trace: where a Chrome trace of it is to go.
    """
    device = settings.device()
    load = load_of(settings, settings.workload(), device, case)
    instance = instance_settings(settings, device, case)
    last_s = load.arrivals[-1].at_s or 1.0
    watching: ChromeTrace | nullcontext[Watch] = (
        nullcontext(Watch()) if trace is None else ChromeTrace(trace)
    )
    with watching as watch:
        run = simulate(
            instance,
            case.variant.instances,
            load.arrivals,
            Window(load.from_s, load.to_s),
            lambda now: report(index, min(0.99, now / last_s)),
            settings.rules(case.variant.boundary),
            watch,
        )
    found = _outcome(case, run, Window(load.from_s, load.to_s), load.refused, instance)
    del run
    gc.collect()
    report(index, 1.0)
    return found


def instance_settings(settings: Settings, device: DeviceProfile, case: Case) -> InstanceSettings:
    """Of each instance."""
    policy = case.variant.policy
    made = InstanceSettings(
        profile=device,
        model=str(MODEL),
        policy=policy,
        policy_numbers=settings.policy_numbers,
        kv_blocks=settings.kv_blocks(device),
        offload=settings.offload,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        migration=case.variant.boundary != "off",
    )
    if policy == ORACLE:
        return replace(made, policy="fcfs", kv_blocks=device.kv.blocks * _ORACLE_KV)
    return made


def _outcome(
    case: Case, run: ClusterRun, window: Window, refused: int, instance: InstanceSettings
) -> CaseRun:
    totals = run.totals
    peak = max(total.kv_peak_blocks for total in totals)
    assert instance.kv_blocks is not None
    return CaseRun(
        case=case,
        run=PolicyRun(
            policy=case.variant.policy,
            seed=case.seed,
            requests=[figures(timeline) for timeline in run.timelines],
            throughput_tok_s=run.generated_tokens / (window.to_s - window.from_s),
            generated_tokens=sum(total.generated_tokens for total in totals),
            recomputed_tokens=sum(total.recomputed_tokens for total in totals),
            reloaded_tokens=sum(total.reloaded_tokens for total in totals),
            kv_peak_blocks=peak,
        ),
        refused=refused,
        migrations=run.migrations,
        busy_share=sum(total.busy_s for total in totals) / (len(totals) * run.ended_s),
        kv_peak_share=peak / (instance.kv_blocks - 1),
        ended_s=run.ended_s,
    )
