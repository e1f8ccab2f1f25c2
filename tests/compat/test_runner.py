"""The runner of `make compat`, with programs that last a moment and nothing to install."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.compat import __main__ as command_line
from tests.compat import runner as module
from tests.compat.client import Client, Server, name_of
from tests.compat.runner import Result, Runner
from tests.compat.table import all_clients
from tests.support.programs import Program


class Addresses:
    """Servers that are only addresses."""

    def url(self, kind: Server) -> str:
        if kind == "emulated":
            raise AssertionError("a trace\nno such server\n")
        return f"http://127.0.0.1/{kind}"


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "clients", Addresses(), out=io.StringIO(), grace_s=0.5)


def client(tmp_path: Path, code: str, name: str = "Some client", **more: Any) -> Client:
    program = tmp_path / f"{len(list(tmp_path.glob('*.py')))}.py"
    program.write_text(code)
    return Client(name, "pypi", (), str(program), **more)


def outcomes(runner: Runner, clients: Sequence[Client]) -> tuple[int, list[str]]:
    status = runner.run(clients)
    return status, [result.outcome for result in runner.results]


def test_the_program_gets_its_servers_and_its_lines_are_its_cases(
    runner: Runner, tmp_path: Path
) -> None:
    code = "import sys; print('ok', *sys.argv[1:]); print('said'); print('ok b [x/y#1]')"
    found = client(tmp_path, code.replace("*sys.argv[1:]", "len(sys.argv[1:])"),
                   servers=("embedded", "inside"))  # fmt: skip
    assert outcomes(runner, [found]) == (0, ["ok"])
    assert [(case.name, case.elsewhere) for case in runner.results[0].cases] == [
        ("2", ""), ("b", "x/y#1"),
    ]  # fmt: skip
    assert "said" in (runner.folder / "some-client" / "client.log").read_text()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('ok a'); print('FAIL b: it broke'); raise SystemExit(1)", ""),
        ("print('ok a'); raise SystemExit('the end')", "status 1: the end"),
        ("", ""),  # a program that tries nothing
        ("import time; print('ok a', flush=True); time.sleep(600)", "not done after 0.02 min"),
    ],
)
def test_what_fails_is_said_and_the_next_client_runs(
    runner: Runner, tmp_path: Path, code: str, reason: str
) -> None:
    clients = [client(tmp_path, code, limit_minutes=0.02), client(tmp_path, "print('ok c')", "B")]
    clients[1] = client(tmp_path, "print('ok c')", "B")
    assert outcomes(runner, clients) == (1, ["FAIL", "ok"])
    assert runner.results[0].reason == reason


def test_a_client_that_cannot_be_installed_is_no_end(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, packages: Sequence[str], output: Any, limits: Sequence[str]) -> None:
        output.write("Resolving\nerror: there is no such version\n  hint: none\n")
        raise subprocess.CalledProcessError(1, ["uv"])

    monkeypatch.setattr(module, "install_venv", refuse)
    clients = [
        Client("Gone", "pypi", ("gone==1",), "python/openai_sdk.py"),
        client(tmp_path, "print('ok c')"),
    ]
    assert outcomes(runner, clients) == (1, ["FAIL", "ok"])
    assert runner.results[0].reason == "it cannot be installed: error: there is no such version"


def test_it_is_installed_once_and_again_for_another_version(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(module, "install_npm", lambda _, packages, __: asked.append(packages))
    home = runner.folder / "x"
    home.mkdir(parents=True)
    for packages in (("a@1",), ("a@1",), ("a@2",)):
        module.run_installer(Client("x", "npm", packages, "x.mjs"), home, io.StringIO())
    assert asked == [("a@1",), ("a@2",)]


def test_a_missing_program_and_a_server_that_does_not_start(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = Program("node", install="install Node.js 20", find=lambda: None)
    monkeypatch.setattr("tests.compat.client.NODE", absent)
    clients = [
        Client("x", "npm", ("a@1",), "x.mjs"),
        client(tmp_path, "print('ok c')", servers=("emulated",)),
    ]
    assert outcomes(runner, clients) == (1, ["absent", "FAIL"])
    assert [result.reason for result in runner.results] == [
        "node is missing: install Node.js 20",
        "its server does not start: no such server",
    ]


def test_the_user_s_settings_do_not_reach_a_client(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1/other")
    monkeypatch.setenv("HOME", "/nowhere")
    code = """
import json, os
print("ok", json.dumps([os.environ.get("OPENAI_BASE_URL"), os.path.isdir(os.environ["HOME"])])
      .strip("[]"))
"""
    assert outcomes(runner, [client(tmp_path, code)]) == (0, ["ok"])
    assert json.loads(f"[{runner.results[0].cases[0].name}]") == [None, True]


def test_a_client_of_the_lock_says_which_version_it_has(runner: Runner, tmp_path: Path) -> None:
    code = "print('ok a')"
    found = client(tmp_path, code, of_venv=("no-such-package", "pytest"))
    assert outcomes(runner, [found]) == (0, ["ok"])
    assert runner.results[0].versions == f"pytest {pytest.__version__}"


def test_every_result_is_handed_on_at_once(runner: Runner, tmp_path: Path) -> None:
    seen: list[Result] = []
    runner.done = seen.append
    code = "raise KeyboardInterrupt"
    clients = [client(tmp_path, "print('ok a')"), client(tmp_path, code, "B")]
    runner.run(clients)
    assert [result.client.name for result in seen] == ["Some client", "B"]


def test_the_table_is_sound() -> None:
    clients = all_clients()
    assert len({one.key for one in clients}) == len({one.name for one in clients}) == len(clients)
    for one in clients:
        assert one.path.is_file(), one
        assert one.servers
        for package in one.packages:  # exact versions
            sign = "@" if one.installer == "npm" else "=="
            assert package.rpartition(sign)[2][:1].isdigit(), package


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("litellm[proxy]==1.1", "litellm"),
        ("@ai-sdk/openai@3.0.1", "@ai-sdk/openai"),
        ("ai@6", "ai"),
    ],
)
def test_names_of_packages(package: str, name: str) -> None:
    assert name_of(package) == name


def test_the_list_runs_nothing_and_an_unknown_client_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command_line.main(["--list", "--only", "langchain"]) == 0
    assert capsys.readouterr().out.startswith("langchain ")
    with pytest.raises(SystemExit):
        command_line.main(["--only", "lanchain"])
    assert "invalid choice: 'lanchain'" in capsys.readouterr().err


def test_programs_are_run_by_what_their_name_says(runner: Runner) -> None:
    home = runner.folder
    home.mkdir()
    one = Client("x", "pypi", ("a==1",), "python/openai_sdk.py")
    assert module.command_of(one, home)[0] == str(home / "venv" / "bin" / "python")
    agent = Client("x", "npm", ("a@1",), "python/openai_sdk.py")
    assert module.command_of(agent, home)[0] == sys.executable
