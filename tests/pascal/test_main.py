"""The command line itself."""

from __future__ import annotations

import platform
import re
from importlib import metadata

import pytest

from pascal import main


def test_the_version_names_what_a_report_of_a_fault_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["--version"])
    assert not ended.value.code
    shown = capsys.readouterr().out
    own, python = metadata.version("pascal-serve"), platform.python_version()
    assert re.fullmatch(rf"pascal-serve {own}, vLLM \d+\.\d+\S*, Python {python}\n", shown)
    monkeypatch.setattr(main, "_VLLM", ("no-such-package",))
    with pytest.raises(SystemExit):
        main.main(["--version"])
    assert "vLLM is not installed" in capsys.readouterr().out
