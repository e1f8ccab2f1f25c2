"""``pascal simulate paper``: reproduces the paper's evaluation with the code that serves.

Runs the cases of `bench.paper.plan` that the state folder does not hold yet. Then it prints tables,
writes JSON, and with ``--docs`` renews the tables and images of docs/results/reproduction.md. An
interrupted command continues where it stopped. No engine is imported before the flags are checked.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from bench.paper.cases import POLICIES, Case
from bench.paper.outcome import PaperRun
from bench.paper.plan import (
    FULL,
    QUICK,
    SECTIONS,
    Label,
    Scope,
    Section,
    capped,
    characterised,
    in_order,
    sections,
)
from bench.paper.store import Store
from bench.reporting.console import (
    FAILED,
    OK,
    REFUSED,
    CaseProgress,
    give_up,
    interrupted,
    wide_console,
)
from bench.reporting.errors import BenchmarkError
from bench.reporting.outputs import prepare_json, write_json
from bench.reporting.vllm_environment import prepare_environment
from bench.simulator.parallel import in_parallel
from bench.simulator.results import ORACLE

_DOCS = Path(__file__).resolve().parents[2] / "docs" / "results"
_STATE = Path("bench-results") / "paper"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal simulate paper``."""
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="a reduced run (minutes): half of the memory, short windows, one seed",
    )
    add("--json", type=Path, metavar="FILE", help="write all results there")
    add(
        "--docs",
        type=Path,
        metavar="DIR",
        help="renew the tables and images of DIR/reproduction.md; default: docs/results of "
        "this checkout, but nothing with --quick, --only or --seeds",
    )
    add(
        "--state",
        type=Path,
        default=_STATE,
        metavar="DIR",
        help=f"folder of finished runs; an interrupted command continues from it ({_STATE})",
    )
    add(
        "--seeds",
        type=int,
        metavar="N",
        help="use the first N seeds, and three fifths of them for sweeps (default: all); a "
        "later run with more seeds continues",
    )
    add("--only", choices=SECTIONS, action="append", metavar="PART", help=", ".join(SECTIONS))


def run(args: argparse.Namespace) -> int:
    """Simulate the missing cases and print the results; :return: the exit status."""
    console = wide_console()
    scope = QUICK if args.quick else FULL
    wanted = tuple(dict.fromkeys(args.only or SECTIONS))
    docs = _docs(args)
    if args.seeds is not None:
        if not 1 <= args.seeds <= len(scope.seeds):
            return give_up(REFUSED, f"--seeds: 1 to {len(scope.seeds)}, not {args.seeds}")
        scope = scope.with_seeds(args.seeds)
    try:
        prepare_json(args.json, keep=False)
        store = Store(args.state)
        if docs is not None:
            from bench.paper.report import prepare_docs

            prepare_docs(docs)
    except BenchmarkError as error:
        return give_up(REFUSED, error)
    prepare_environment()
    try:
        runs = _simulated(scope, wanted, store, console)
        _report(scope, runs, args.json, docs, console)
    except BenchmarkError as error:
        return give_up(FAILED, error)
    except KeyboardInterrupt:
        return interrupted(f"finished runs are in {store.folder}, the same command goes on")
    return OK


def _docs(args: argparse.Namespace) -> Path | None:
    """Folder of the page to renew; None: no page."""
    if args.docs is not None or args.quick or args.only or args.seeds is not None:
        return args.docs  # type: ignore[no-any-return]
    return _DOCS if (_DOCS / "reproduction.md").is_file() else None


def _simulated(
    scope: Scope, wanted: Sequence[str], store: Store, console: Console
) -> dict[str, dict[Label, list[PaperRun]]]:
    """The runs of every section; finished ones come from the store."""
    plan = {name: section for name, section in sections(scope).items() if name in wanted}
    if "characterisation" in wanted:
        plan["characterisation"] = characterised(scope)
    oracle = plan.get("characterisation", {}).get((ORACLE,), [])
    total = len(in_order(plan)) + len(oracle) * (len(POLICIES) - 1)
    with CaseProgress(console, f"virtual time ({scope.name})", total) as progress:
        runner = _Runner(store, console, progress, total)
        runner.run(in_order(plan))
        if oracle:
            # The oracle's use of memory decides how much the other policies get.
            rest = capped({case: store.get(case).run.kv_peak_blocks for case in oracle})
            runner.run(in_order({"characterisation": rest}))
            plan["characterisation"] |= rest
    return {name: _runs(section, store) for name, section in plan.items()}


def _runs(section: Section, store: Store) -> dict[Label, list[PaperRun]]:
    return {label: [store.get(case) for case in cases] for label, cases in section.items()}


class _Runner:
    """Runs the cases that the store lacks, one process per core, and shows the progress."""

    def __init__(self, store: Store, console: Console, progress: CaseProgress, total: int) -> None:
        self._store = store
        self._console = console
        self._progress = progress
        self._total, self._done = total, 0  # cases

    def run(self, cases: Sequence[Case]) -> None:
        """Run cases; those with a finished run count as done."""
        from bench.paper.run import keep_case

        missing = [case for case in cases if self._store.load(case) is None]
        self._done += len(cases) - len(missing)
        if len(missing) < len(cases):
            kept = len(cases) - len(missing)
            self._console.print(f"{kept} of {len(cases)} runs are already in {self._store.folder}")
        before = self._done
        self._progress.show(before)
        if not missing:
            return
        arguments = [(index, case, self._store.folder) for index, case in enumerate(missing)]
        for case in in_parallel(
            keep_case, arguments, lambda done: self._progress.show(before + done)
        ):
            self._done += 1
            self._progress.finished(case.text, self._done, self._total)


def _report(
    scope: Scope,
    runs: Mapping[str, dict[Label, list[PaperRun]]],
    json: Path | None,
    docs: Path | None,
    console: Console,
) -> None:
    from bench.paper import report
    from bench.paper.results import results_of

    results = results_of(scope, runs)
    for table in report.tables(results):
        console.print(table)
    write_json(json, results)
    if docs is not None:
        report.renew(docs, results)
        console.print(f"renewed {docs / report.PAGE} and its images")
