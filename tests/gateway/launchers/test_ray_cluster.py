"""Workers in actors of a real Ray cluster, if ray is installed."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import Config, LauncherConfig, ServerConfig
from gateway.launchers.preflight import RAY_VERSIONS, PreflightError, check
from tests.support import programs

HAVE_RAY = importlib.util.find_spec("ray") is not None
RAY = Config(server=ServerConfig(port=0), launcher=LauncherConfig(kind="ray"))


@pytest.mark.skipif(HAVE_RAY, reason="ray is installed; this is about a machine without it")
def test_without_the_package_it_says_so_in_one_line() -> None:
    with pytest.raises(PreflightError, match=r"pip install 'pascal-serve\[ray\]'"):
        check(RAY)


@pytest.fixture
def _real_ray() -> Iterator[None]:
    """Whatever is imported as ray in the test is forgotten after it."""
    real = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "ray"}
    for name in real:
        del sys.modules[name]
    yield
    sys.modules.pop("ray", None)
    sys.modules.update(real)


def fake_ray(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "ray.py").write_text(text)
    monkeypatch.syspath_prepend(folder)


@pytest.mark.usefixtures("_real_ray")
def test_a_package_that_cannot_be_imported_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ray(tmp_path, monkeypatch, "raise OSError('libfoo.so.1: cannot open')")
    with pytest.raises(PreflightError, match=r"OSError: libfoo.so.1: cannot open; reinstall it"):
        check(RAY)


@pytest.mark.usefixtures("_real_ray")
@pytest.mark.parametrize("version", ["1.13.0", "2.48.9", "3.0.0rc1", "unknown"])
def test_another_version_is_named_with_the_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    fake_ray(tmp_path, monkeypatch, f"__version__ = {version!r}")
    expected = "cannot be imported" if version == "unknown" else r"from 2.49 to below 3 is"
    with pytest.raises(PreflightError, match=expected):
        check(RAY)


def test_the_range_is_that_of_the_extra() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    least, below = (".".join(map(str, limit)) for limit in RAY_VERSIONS)
    assert project["project"]["optional-dependencies"]["ray"] == [f"ray>={least},<{below}"]


@pytest.mark.engine
@pytest.mark.slow
@programs.needs(programs.RAY)
def test_two_actors_serve_fail_move_and_outlive_their_gateway(tmp_path: Path) -> None:
    from tests.support.ray_cluster import ray_cluster, show

    with ray_cluster() as address:
        assert show(tmp_path, address, "model.dtype=float32")["with their KV"] >= 1
