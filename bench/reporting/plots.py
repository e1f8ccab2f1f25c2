"""What all plots of scheduling policies share: a colour for each policy, and the file format."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.figure import Figure

matplotlib.use("Agg")

COLOURS: Final = {
    "oracle": "#9aa0a6",
    "fcfs": "#c0504d",
    "fcfs+watermark": "#8b5a9f",
    "rr": "#e0a030",
    "pascal": "#4f81bd",
    "slack": "#2e8b57",
}


def save(figure: Figure, path: Path, *, dpi: int = 80) -> None:
    """Write a PNG file, and make its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)
