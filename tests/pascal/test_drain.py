"""``pascal drain``: errors are one line."""

from __future__ import annotations

import pytest

from pascal.main import main


@pytest.mark.parametrize("url", ["http://127.0.0.1:abc", "nonsense", "http://127.0.0.1:9"])
def test_an_address_at_which_no_gateway_answers(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["drain", "worker-0", f"--base-url={url}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"pascal: no gateway answers at {url}: ")
    assert error.count("\n") == 1


def test_several_are_not_restarted_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drain", "worker-0", "worker-1", "--restart", "--no-wait"]) == 2
    assert "--no-wait takes a single instance" in capsys.readouterr().err
