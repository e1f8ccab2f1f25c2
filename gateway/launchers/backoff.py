"""Decides the pause before another attempt. Pure: no clock, no random generator.

The pause doubles with every failure. It starts anew after an attempt that served well: for at least
``stable_s``, and for longer than the pause before it. Only the time in which a worker *served*
counts: a worker that loads its model for minutes and then dies has not served.
"""

from __future__ import annotations


class Backoff:
    """The pauses of one worker.

    :param first_s: the first pause.
    :param longest_s: the longest pause.
    :param stable_s: how long a worker must serve until its failures are forgotten.
    """

    def __init__(self, first_s: float, longest_s: float, *, stable_s: float = 0.0) -> None:
        self.failures = 0  # in a row, since it last served well
        self._first_s = first_s
        self._longest_s = longest_s
        self._stable_s = stable_s
        self._next_s = first_s
        self._last_s = 0.0

    def failed(self, served_s: float | None) -> float:
        """Count an attempt that has ended.

        :param served_s: how long it served; None: it never did.
        :return: the pause before the next attempt, in seconds.
        """
        if served_s is not None:
            self.forgive(served_s)
        self.failures += 1
        self._last_s = min(self._next_s, self._longest_s)
        self._next_s = 2 * self._last_s
        return self._last_s

    def forgive(self, served_s: float) -> bool:
        """Forget the failures of a worker that has served well; :return: whether it has."""
        if served_s <= max(self._stable_s, self._last_s):
            return False
        self.failures, self._last_s, self._next_s = 0, 0.0, self._first_s
        return True
