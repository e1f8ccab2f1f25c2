"""Which torch a machine without a GPU gets, decided with a uv that is a script.

The script knows the torch builds that are within reach, and logs its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import package_sources
import pytest
import setup_env
from machine import Interpreter, SetupError
from package_sources import CPU_LOCK, CUDA_TORCH_LOCK, PackageSources

PYTHON = Interpreter("/usr/bin/python3.12", (3, 12, 1))
SOURCES = PackageSources(env={"PATH": "/usr/bin:/bin"}, find_links=("/wheels",))
UV = """\
#!/bin/sh
echo "$*" >> "{log}"
case "$*" in
  "cache dir") echo "{folder}/cache" ;;
  *--dry-run*) case "$*" in {reachable}) exit 0 ;; *) exit 1 ;; esac ;;
esac
"""
CPU_IN_A_FOLDER = "*+cpu\\ --find-links\\ /wheels"  # patterns of the shell, over all arguments
CPU_AT_PYTORCH = "*+cpu*--torch-backend\\ cpu"
CUDA = "*torch==2.[0-9]*.[0-9]\\ *"
NOTHING = "nothing"


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes the script for a pattern of the builds within reach; set-up writes into a folder."""
    venv = tmp_path / ".venv"
    venv.mkdir()
    monkeypatch.setattr(setup_env, "VENV", venv)
    monkeypatch.setattr(setup_env, "STAMP", venv / "stamp.json")
    monkeypatch.setattr(setup_env, "find_sources", lambda _python: SOURCES)
    monkeypatch.setattr(setup_env, "check_machine", lambda *_: None)

    def make(reachable: str) -> str:
        script = tmp_path / "uv"
        log = tmp_path / "log"
        script.write_text(UV.format(log=log, folder=tmp_path, reachable=reachable))
        script.chmod(0o755)
        monkeypatch.setattr(setup_env, "provide_uv", lambda _python, _keep_open: str(script))
        return str(script)

    return make


def locate(uv: str) -> package_sources.Attempt:
    return setup_env.locate_torch(uv, SOURCES, PYTHON, None)


def asked(tmp_path: Path, word: str) -> list[str]:
    return [line for line in (tmp_path / "log").read_text().splitlines() if word in line]


def test_the_first_place_that_has_a_torch_is_taken(
    uv: Callable[[str], str], tmp_path: Path
) -> None:
    for reachable, lock, number in (
        (CPU_IN_A_FOLDER, CPU_LOCK, 1),
        (CPU_AT_PYTORCH, CPU_LOCK, 2),
        (CUDA, CUDA_TORCH_LOCK, 3),
    ):
        (tmp_path / "log").unlink(missing_ok=True)
        assert locate(uv(reachable)).lock == lock
        assert len(asked(tmp_path, "--dry-run")) == number


def test_no_torch_at_all_is_one_clear_line(uv: Callable[[str], str]) -> None:
    with pytest.raises(SetupError, match=r"for Python 3\.12\.1 .*PIP_FIND_LINKS") as error:
        locate(uv(NOTHING))
    assert "\n" not in str(error.value)


def test_the_cuda_build_comes_with_its_lock_and_is_announced(
    uv: Callable[[str], str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    uv(CUDA)
    setup_env.install("cpu", "digest", PYTHON, None)
    (sync,) = asked(tmp_path, "pip sync")
    assert sync.endswith("requirements/cpu-cuda-torch.txt")
    assert "+cpu" not in sync
    said = capfd.readouterr().err
    assert f"no CPU build of torch for Python {PYTHON} was found" in said
    assert "nixl-cu13==" in said
    assert "6 GiB instead of 3" in said
    assert setup_env.read_stamp()["lock"] == CUDA_TORCH_LOCK
    assert setup_env.is_ready("digest", None) is False  # the script makes no python


def test_the_cpu_build_is_not_announced_as_larger(
    uv: Callable[[str], str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    uv(CPU_AT_PYTORCH)
    setup_env.install("cpu", "digest", PYTHON, None)
    (sync,) = asked(tmp_path, "pip sync")
    assert sync.endswith("--torch-backend cpu " + str(setup_env.lock_file("cpu")))
    assert "larger" not in capfd.readouterr().err
    assert setup_env.read_stamp()["lock"] == CPU_LOCK


def test_the_cuda_build_needs_more_disk_space_and_nothing_is_installed_without(
    uv: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv(CUDA)
    needed: list[float] = []

    def check(_places: object, disk_gib: float) -> None:
        needed.append(disk_gib)
        if disk_gib > 5:
            raise SetupError("too little disk space")

    monkeypatch.setattr(setup_env, "check_machine", check)
    with pytest.raises(SetupError, match="too little disk space"):
        setup_env.install("cpu", "digest", PYTHON, None)
    assert needed == [setup_env.DISK_GIB[CPU_LOCK], setup_env.DISK_GIB[CUDA_TORCH_LOCK]]
    assert asked(tmp_path, "pip sync") == []
    assert setup_env.read_stamp()["state"] == "unfinished"


def test_a_finished_environment_needs_no_second_share_of_the_disk(
    uv: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uv(CUDA)
    setup_env.write_stamp("ready", "older", PYTHON, CUDA_TORCH_LOCK)
    monkeypatch.setattr(setup_env, "check_machine", lambda *_: pytest.fail("checked"))
    setup_env.install("cpu", "digest", PYTHON, None)


def test_a_gpu_is_never_given_either_lock_of_the_cpu(
    uv: Callable[[str], str], tmp_path: Path
) -> None:
    uv(NOTHING)
    setup_env.install("gpu", "digest", PYTHON, None)
    assert asked(tmp_path, "--dry-run") == []
    assert asked(tmp_path, "pip sync")[0].endswith("requirements/gpu.txt")
