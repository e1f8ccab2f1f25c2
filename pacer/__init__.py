"""Delivery of answering tokens at the reader's pace, and its quality.

Standard library only, without an event loop or a clock: ``now`` is a parameter, in seconds of any
monotonic clock. Four parts:

* `pacer.clock.ReadingClock` converts seconds to reading time, which stands still during a pause.
* `pacer.schedule.ReleaseSchedule` plans when each generated token is released.
* `pacer.buffer.TokenBuffer` holds generated tokens and returns those that are due.
* `pacer.qoe`: the quality of experience of a delivered stream (paper, section "QoE, exactly").
"""

from pacer.buffer import Release, TokenBuffer
from pacer.clock import ReadingClock
from pacer.qoe import RunningQoE, qoe
from pacer.schedule import ReleaseSchedule

__all__ = ["ReadingClock", "Release", "ReleaseSchedule", "RunningQoE", "TokenBuffer", "qoe"]
