"""Splits outputs into reasoning and answer, for traces that only count output tokens.

Most public traces do not come from reasoning models. The user chooses a split by name:

    none          no reasoning but the end-of-reasoning token: the trace as it was
    servegen-r1   a share drawn from those of DeepSeek-R1 in production (bench/workloads/tables)
    N:M           always N tokens of reasoning to M of the answer, such as 4:1

Pure, except for the random generator that is passed in, and that it reads the table.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable

from bench.reporting.errors import BenchmarkError
from bench.workloads.distributions import TABLES, Quantiles, read_quantiles
from bench.workloads.lengths import Lengths, divided

CHOICES = "none, servegen-r1, or a ratio of reasoning to answer such as 4:1"

# From prompt and output tokens to a request.
Split = Callable[[int, int, random.Random], Lengths]


class SplitError(BenchmarkError):
    """The split does not exist; the message lists the known ones."""


def split_named(name: str) -> Split:
    """The split of that name; :raises SplitError: if it does not exist."""
    if name == "none":
        return lambda prompt, output, _: divided(prompt, output, 0)
    if name == "servegen-r1":
        shares = r1_shares()
        return lambda prompt, output, rng: divided(prompt, output, output * shares.draw(rng))
    if match := re.fullmatch(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", name):
        reasoning, answer = float(match[1]), float(match[2])
        if reasoning + answer > 0:
            share = reasoning / (reasoning + answer)
            return lambda prompt, output, _: divided(prompt, output, output * share)
    raise SplitError(f"unknown split {name!r}; known are {CHOICES}")


@functools.cache
def r1_shares() -> Quantiles:
    """Shares of reasoning in outputs, over all requests of ServeGen's DeepSeek-R1 clients."""
    return read_quantiles(TABLES / "servegen_r1_reason_ratio.csv", "reason_ratio")[0]
