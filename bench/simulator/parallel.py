"""Cases of a benchmark in a process per core, with word of how far each is.

Knows nothing of what the cases are. Ctrl-C, or any other end before the last case, ends the
processes at once; so does the death of the process that started them.
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

_LOOK_S = 0.25  # between two looks at how far cases are

_shares: SynchronizedArray[float] | None = None  # in a case's process: of each case, how far it is


def in_parallel(
    function: Callable[..., _Result],
    cases: Sequence[tuple[Any, ...]],
    progress: Callable[[float], None] | None = None,
) -> Iterator[_Result]:
    """What ``function`` returns for each case, as they are done.

    :param progress: called now and then with the number of cases done, parts of cases included,
        as far as they `report`.
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
        left = {pool.submit(function, *case) for case in cases}
        while left:
            done, left = wait(left, _LOOK_S if progress else None, FIRST_COMPLETED)
            for future in done:
                yield future.result()
            if progress is not None:
                progress(sum(shares[:]))
        finished = True
    except BrokenProcessPool as error:
        raise BenchmarkError("a process died, perhaps for lack of memory") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        if not finished:
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()


def report(case: int, share: float) -> None:
    """Say from a case how much of it is done, from 0 to 1."""
    if _shares is not None:
        _shares[case] = share


def _begin(shares: SynchronizedArray[float]) -> None:
    global _shares
    _shares = shares
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The interrupt of a terminal reaches all processes: the one that started these ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Collect between cases only: within one it takes a third of the time and finds nothing.
    gc.freeze()
    gc.disable()


def _end_with_parent() -> None:
    """Nobody waits for a case whose parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
