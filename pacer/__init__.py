"""Delivery of answering tokens at the reader's pace, and how well that went.

Three parts, standard library only, no event loop, no clock of their own (``now`` is a parameter,
in seconds of any monotonic clock):

* `pacer.clock.ReadingClock`: seconds -> reading time, which stands still while the reader pauses.
* `pacer.buffer.TokenBuffer`: holds generated tokens and says which may be released.
* `pacer.qoe`: the quality of experience of a delivered stream (paper, section "QoE, exactly").
"""

from pacer.buffer import Release, TokenBuffer
from pacer.clock import ReadingClock
from pacer.qoe import RunningQoE, qoe

__all__ = ["ReadingClock", "Release", "RunningQoE", "TokenBuffer", "qoe"]
