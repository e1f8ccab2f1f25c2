"""The environment of a fresh clone, and the Python that it is set up with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.acceptance import fresh
from tests.acceptance.parts import find_interpreter

SET = {
    "PATH": "/usr/bin",
    "HOME": "/root",
    "PASCAL_PORT": "1",
    "PASCAL_ACCEPTANCE": "1",
    "MAKEFLAGS": "w",
    "ARGS": "--only docs",
    "PYTHONPATH": "scripts",
    "VIRTUAL_ENV": "/old",
    "UV_CACHE_DIR": "/cache",
    "PIP_INDEX_URL": "mirror",
}


def test_a_newcomer_has_nothing_that_was_set_for_this_project(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    usual = {
        "PATH": "/opt/python/bin:/usr/bin",
        "PYTHON": "/opt/python/bin/python3",
        "PIP_INDEX_URL": "mirror",
    }
    python = "/opt/python/bin/python3"
    own = fresh.environment(None, python)
    assert own == {**usual, "HOME": "/root", "UV_CACHE_DIR": "/cache"}
    assert fresh.environment(Path("/empty"), python) == {**usual, "HOME": "/empty"}


def test_an_interpreter_is_found_on_the_path_or_among_those_of_pyenv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def python(path: Path, version: str) -> str:
        path.parent.mkdir(parents=True)
        path.write_text(f"""#!/bin/sh\necho '["{path}", [{version}]]'\n""")
        path.chmod(0o755)
        return str(path)

    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_interpreter((3, 12)) is None
    pyenv = python(tmp_path / "versions" / "3.12.1" / "bin" / "python3", "3, 12, 1")
    assert find_interpreter((3, 12)) == pyenv
    assert find_interpreter((3, 13)) is None
    on_path = python(tmp_path / "bin" / "python3.12", "3, 12, 9")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin")
    assert find_interpreter((3, 12)) == on_path


def test_an_answer_that_is_wrong_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(text: str) -> None:
        message = {"message": {"content": text}}
        monkeypatch.setattr(fresh, "post", lambda _url, _body: {"choices": [message]})

    answers("The answer is 623.")
    assert fresh.chat("http://gateway") == "The answer is 623."
    answers("The answer is 632.")
    with pytest.raises(RuntimeError, match="the model says: 'The answer is 632"):
        fresh.chat("http://gateway")
