"""The embedded model under other names: its tokens stay the same, and so does what it writes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

MODEL = Path(__file__).resolve().parents[2] / "models" / "tiny-reasoner"
# What ends its thoughts is no marker under this name, so that they end only where a call opens.
CALLS_IN_THOUGHTS = {"</think>": "</tool_response>", "</tool_response>": "</think>"}


def renamed(folder: Path, names: Mapping[str, str]) -> Path:
    """A copy of the embedded model in which tokenizer and template use other names.

    :param names: new ones by old ones.
    """
    shutil.copytree(MODEL, folder)
    old = re.compile("|".join(map(re.escape, names)) or "(?!)")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / file).read_text(encoding="utf-8")
        text = old.sub(lambda found: json.dumps(names[found[0]])[1:-1], text)
        (folder / file).write_text(text, encoding="utf-8")
    return folder
