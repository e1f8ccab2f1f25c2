"""One case of ``pascal simulate run``, in a process of its own: settings in, results out."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from bench.simulator.case import CaseSpec, run_case
from bench.simulator.cluster import Watch
from bench.simulator.load import Extent
from bench.simulator.run.chrome_trace import ChromeTrace
from bench.simulator.run.settings import Case, CaseRun, Settings, load_of
from bench.simulator.scheduler_factory import InstanceSettings


def simulate_case(index: int, case: Case, settings: Settings, trace: Path | None) -> CaseRun:
    """Simulate a case.

    :param index: of the case among all of the command.
    :param trace: file for a Chrome trace of it.
    """
    device = settings.device()
    load = load_of(settings, settings.workload(), device, case)
    spec = CaseSpec(
        policy=case.variant.policy,
        seed=case.seed,
        extent=Extent(load.from_s, load.to_s, load.arrivals[-1].at_s or 1.0),
        instances=case.variant.instances,
        rules=settings.rules(case.variant.boundary),
        instance=InstanceSettings(
            profile=device,
            policy_numbers=settings.policy_numbers,
            kv_blocks=settings.kv_blocks(device),
            offload=settings.offload,
            max_num_seqs=settings.max_num_seqs,
            max_num_batched_tokens=settings.max_num_batched_tokens,
        ),
    )
    watching: ChromeTrace | nullcontext[Watch] = (
        nullcontext(Watch()) if trace is None else ChromeTrace(trace)
    )
    with watching as watch:
        outcome = run_case(spec, load.arrivals, watch, index)
    return CaseRun(
        case=case,
        run=outcome.run,
        refused=load.refused,
        migrations=outcome.migrations,
        busy_share=outcome.busy_share,
        kv_peak_share=outcome.kv_peak_share,
        ended_s=outcome.ended_s,
        tasks=outcome.tasks,
    )
