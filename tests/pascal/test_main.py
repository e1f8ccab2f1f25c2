"""The command line itself: versions and exit statuses."""

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


@pytest.mark.parametrize(
    "arguments",
    [[], ["serv"], ["drain"], ["bench"], ["bench", "speed"], ["simulate"], ["simulate", "papers"]],
    ids=" ".join,
)
def test_a_wrong_command_line_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: pascal")


def test_ctrl_c_ends_a_command_with_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("pascal.drain.run", interrupted)
    assert main.main(["drain", "worker-0"]) == 130
    assert capsys.readouterr().err == "pascal: interrupted\n"
