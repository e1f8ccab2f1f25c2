"""What simulations share unless they are asked for something else. Must not import an engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from gateway.policy.placement import PAPER, Rules

# Only its configuration is read: a profile gives the shape of the KV cache and the step times.
MODEL: Final = Path(__file__).resolve().parents[2] / "models" / "tiny-reasoner"
PROFILE: Final = "h100-qwen32b"
INSTANCES: Final = 8
ORACLE_KV: Final = 8  # times the device's memory: never full
LONGEST: Final = 32_768  # tokens of prompt and output of the longest request

# Rules of placement by the name of what happens at the phase boundary:
#     off             requests stay
#     always          Algorithm 2 (paper), even if its target has no room
#     adaptive_paper  Algorithm 2, but stay if only the current instance has room (paper)
#     adaptive        Algorithm 2 among instances with room to spare (``headroom``)
#     balance         to the smallest KV footprint, if the difference is worth a move
RULES: Final = {
    "off": replace(PAPER, boundary="off"),
    "always": replace(PAPER, boundary="always"),
    "adaptive_paper": PAPER,
    "adaptive": replace(PAPER, headroom=Rules().headroom),
    "balance": replace(PAPER, boundary="balance", headroom=Rules().headroom),
}
