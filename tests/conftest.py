"""A real gateway with two real vLLM engines, shared by the tests that need one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import programs
from tests.support.server import Server

# For engines in this process and in those that it starts: see `bench.reporting.vllm_environment`.
os.environ["OMP_NUM_THREADS"] = "1"

# Hypothesis fails a test whose example takes 200 ms by default: a limit of speed, on any machine.
settings.register_profile("pascal", deadline=None)
settings.load_profile("pascal")


@pytest.hookimpl(tryfirst=True)  # before the fixtures of the test
def pytest_runtest_setup(item: pytest.Item) -> None:
    programs.check(item)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``pascal serve`` with two workers on a free port."""
    state_dir: Path = tmp_path_factory.mktemp("state")
    with Server(state_dir, workers=2) as running:
        yield running
