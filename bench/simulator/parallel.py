"""Runs the cases of a measurement in one process per core, and reports their progress.

Must not know what the cases are. The processes end at once on Ctrl-C, on any other early end, and
if the process that started them dies.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import SynchronizedArray
from typing import Any, TypeVar

from bench.reporting.errors import BenchmarkError

_Result = TypeVar("_Result")

_LOOK_S = 0.25  # between two reports of progress

_shares: SynchronizedArray[float] | None = None  # in a child: the finished share of each case


def in_parallel(
    function: Callable[..., _Result],
    cases: Sequence[tuple[Any, ...]],
    progress: Callable[[float], None] | None = None,
) -> Iterator[_Result]:
    """Yield the result of ``function`` for each case, in the order in which cases end.

    :param progress: is called regularly with the number of finished cases; the parts of running
        cases that they `report` count, too.
    :raises BenchmarkError: if a process died.
    """
    context = multiprocessing.get_context("spawn")
    shares = context.Array("d", len(cases))
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        max_workers=min(len(os.sched_getaffinity(0)), len(cases)),
        mp_context=context,
        initializer=_begin,
        initargs=(shares,),
    )
    finished = False
    try:
        # Ctrl-C reaches all processes of a terminal, and this one ends the others. They inherit
        # that they do not see it, so that one that is still starting dies without a traceback.
        seen = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            left = {pool.submit(function, *case) for case in cases}
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, seen)
        while left:
            done, left = wait(left, _LOOK_S if progress else None, FIRST_COMPLETED)
            for future in done:
                yield future.result()
            if progress is not None:
                progress(sum(shares[:]))
        finished = True
    except BrokenProcessPool as error:
        raise BenchmarkError("a process died, perhaps because memory ran out") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        if not finished:
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()


def report(case: int, share: float) -> None:
    """Report from within a case which share of it is done, from 0 to 1."""
    if _shares is not None:
        _shares[case] = share


def _begin(shares: SynchronizedArray[float]) -> None:
    global _shares
    _shares = shares
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Collect only between cases: within a case it takes a third of the time and finds nothing.
    gc.freeze()
    gc.disable()


def _end_with_parent() -> None:
    """End this process when its parent dies."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
