"""Workers in actors of a real Ray cluster, where ray is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gateway.config import Config, LauncherConfig, ServerConfig
from gateway.preflight import PreflightError, check
from tests import programs

HAVE_RAY = importlib.util.find_spec("ray") is not None
RAY = Config(server=ServerConfig(port=0), launcher=LauncherConfig(kind="ray"))


@pytest.mark.skipif(HAVE_RAY, reason="ray is installed; this is about a machine without it")
def test_without_the_package_it_says_so_in_one_line() -> None:
    with pytest.raises(PreflightError, match=r"pip install 'pascal-serve\[ray\]'"):
        check(RAY)


@pytest.mark.engine
@pytest.mark.slow
@programs.needs(programs.RAY)
def test_two_actors_serve_fail_move_and_outlive_their_gateway(tmp_path: Path) -> None:
    from tests.ray_cluster import ray_cluster, show

    with ray_cluster() as address:
        assert show(tmp_path, address, "model.dtype=float32")["with their KV"] >= 1
