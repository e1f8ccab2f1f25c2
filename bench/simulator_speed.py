"""How fast the simulator is, and what its short cuts are worth.

``python -m bench.simulator_speed [--quick] [--repeats N] [--json FILE]`` simulates eight instances
under a steady load, as if it had gone on for ever: once with every short cut of
`bench.simulator.scheduler`, once with none (``exact``), turn and turn about. Counted is CPU time of
this process, since others may share the machine, from the first arrival on: not what it takes to
configure vLLM. Medians of all repeats, with the least and the most.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.policies.virtual import KV_SHARE
from bench.reporting.console import CaseProgress, interrupted
from bench.reporting.errors import BenchmarkError
from bench.reporting.outputs import prepare_json, write_json
from bench.simulator.case import CaseSpec
from bench.simulator.defaults import INSTANCES, PROFILE, RULES
from bench.simulator.load import Extent, SteadyLoad
from bench.simulator.scheduler_factory import InstanceSettings
from workers.emulation.profile import load_profile

_SEED = 1


@dataclass(frozen=True, slots=True)
class Case:
    """A load, and who schedules it."""

    name: str
    policy: str
    rate: float  # requests per second, all instances together
    token_s: float  # that a token takes under this load
    boundary: str = "off"  # where requests go at it; see `gateway.policy.placement`


CASES = (
    Case("low load", "slack", 2.0, 0.028),
    Case("pressure", "slack", 4.8, 0.031),
    Case("pressure", "pascal", 4.8, 0.031),
    Case("pressure, requests move", "slack", 4.8, 0.031, "balance"),
)


@dataclass(frozen=True, slots=True)
class Speed:
    """What one case took."""

    case: Case
    simulated_s: float
    quick_cpu_s: tuple[float, ...]  # with short cuts, each repeat
    exact_cpu_s: tuple[float, ...]

    @property
    def factors(self) -> list[float]:
        """How many times as fast the short cuts make it, each repeat."""
        pairs = zip(self.exact_cpu_s, self.quick_cpu_s, strict=True)
        return [exact / quick for exact, quick in pairs]


def measure(case: Case, simulated_s: float, repeats: int, done: Callable[[], None]) -> Speed:
    """Run a case with and without short cuts in turn.

    :param done: called after each of the runs, two for each repeat.
    """
    taken: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repeats):
        for exact in (False, True):
            taken[exact].append(cpu_seconds(case, simulated_s, exact))
            done()
    return Speed(case, simulated_s, tuple(taken[False]), tuple(taken[True]))


def cpu_seconds(case: Case, simulated_s: float, exact: bool) -> float:
    """CPU seconds of one run."""
    # Nothing is measured: the simulation ends with the first arrival after the window.
    extent = Extent(simulated_s, simulated_s, 2 * simulated_s)
    load = SteadyLoad(rate=case.rate, extent=extent, token_s=case.token_s)
    spec = CaseSpec(
        policy=case.policy,
        seed=_SEED,
        extent=extent,
        rules=replace(RULES["off"], boundary=case.boundary),
        instance=InstanceSettings(
            kv_blocks=int(load_profile(PROFILE).kv.blocks * KV_SHARE), exact=exact
        ),
    )
    cluster = spec.cluster()
    arrivals = load.arrivals(_SEED)
    gc.collect()
    gc.disable()  # as in the processes of `bench.simulator.parallel`
    try:
        began_s = time.process_time()
        cluster.run(arrivals)
        return time.process_time() - began_s
    finally:
        gc.enable()


def table(speeds: list[Speed]) -> Table:
    """For the terminal."""
    found = Table(title=f"{INSTANCES} instances, simulated seconds per CPU second")
    found.add_column("load")
    found.add_column("policy")
    for title in ("exact", "with short cuts", "times as fast"):
        found.add_column(title, justify="right")
    for speed in speeds:
        rates = [
            _spread([speed.simulated_s / cpu_s for cpu_s in taken])
            for taken in (speed.exact_cpu_s, speed.quick_cpu_s)
        ]
        found.add_row(speed.case.name, speed.case.policy, *rates, _spread(speed.factors))
    return found


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _at_least_one(text: str) -> int:
    try:
        count = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not a number: {text!r}") from error
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {count}")
    return count


def main(flags: Sequence[str] | None = None) -> None:
    """Measure all cases and print the table.

    :param flags: None: those of the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.simulator_speed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a sixth of the simulated time")
    parser.add_argument("--repeats", type=_at_least_one, default=5, help="of each case (5)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args(flags)
    try:
        prepare_json(arguments.json, keep=False)
    except BenchmarkError as error:
        parser.error(str(error))
    simulated_s = 10.0 if arguments.quick else 60.0
    speeds: list[Speed] = []
    try:
        total = 2 * arguments.repeats * len(CASES)
        with CaseProgress(Console(stderr=True), "simulated", total) as progress:
            runs = itertools.count(1)
            for case in CASES:
                name = f"{case.name}, {case.policy}"

                def done(name: str = name) -> None:
                    progress.finished(name, next(runs), total)

                speeds.append(measure(case, simulated_s, arguments.repeats, done))
    except KeyboardInterrupt:
        sys.exit(interrupted())
    Console().print(table(speeds))
    figures = [asdict(speed) | {"factors": speed.factors} for speed in speeds]
    write_json(arguments.json, {"speeds": figures})


if __name__ == "__main__":
    main()
