"""A browser for the tests of a module, and pages in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from chromium import Chromium, find


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Chromium]:
    path = find()
    assert path is not None
    async with Chromium.start(path) as running:
        yield running
