"""A browser and a page of it, for the tests of the pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from chromium import Chromium, Page, find

from tests.support.axe import AXE
from tests.support.packages import install_npm
from tests.web.browsing import OPEN
from tests.web.scripted_server import ScriptedServer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Chromium]:
    """A running browser."""
    browser = find()
    assert browser is not None
    async with Chromium.start(browser) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: Chromium) -> Chromium:
    """The same under another name."""
    return chromium


@pytest_asyncio.fixture(loop_scope="module")
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What a test opens is closed after it."""
    async with AsyncExitStack() as entered:
        yield entered


@pytest_asyncio.fixture(loop_scope="module")
async def scripted(stack: AsyncExitStack) -> ScriptedServer:
    """A server with scripted answers."""
    return await stack.enter_async_context(ScriptedServer())


@pytest_asyncio.fixture(loop_scope="module")
async def page(stack: AsyncExitStack, chromium: Chromium, scripted: ScriptedServer) -> Page:
    """The page, connected to the scripted server."""
    opened = await stack.enter_async_context(chromium.page())
    await opened.resize(1040, 740)
    await opened.go(scripted.url)
    await opened.until(OPEN)
    return opened


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core."""
    folder: Path = tmp_path_factory.mktemp("axe")
    install_npm(folder, [AXE])
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
