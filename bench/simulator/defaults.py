"""What a simulation runs where nobody says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MODEL: Final = (
    Path(__file__).resolve().parents[2] / "models" / "tiny-reasoner"
)  # only its configuration
PROFILE: Final = "h100-qwen32b"
