"""A headless Chromium, driven over the Chrome DevTools Protocol with `websockets` alone.

For the tests of the web pages and for the screenshots in the documentation. `find` looks for a
browser; `Chromium` starts one with an empty profile and opens pages in it.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import websockets

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)
START_S = 60.0
ANSWER_S = 30.0  # longest wait for one command of the protocol

Json = dict[str, Any]


def find() -> str | None:
    """Path of a Chromium or Chrome, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class PageError(Exception):
    """The page threw, or a command of the protocol failed."""


class Page:
    """One tab. Collects the errors of its console and its content security policy."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._loaded = asyncio.Event()

    async def listen(self) -> None:
        """Take messages until the tab closes."""
        with suppress(websockets.ConnectionClosed):
            async for text in self._socket:
                message = json.loads(text)
                if "id" in message:
                    self._waiting.pop(message["id"]).set_result(message)
                else:
                    self._event(message["method"], message["params"])

    def _event(self, method: str, params: Json) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                thrown = details.get("exception", {}).get("description", "")
                self.complaints.append(f"exception: {details['text']} {thrown}")
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning"):
                said = " ".join(str(arg.get("value", "")) for arg in params["args"])
                self.complaints.append(f"console.{params['type']}: {said}")
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"log: {params['entry']['text']}")

    async def command(self, method: str, **params: Any) -> Json:
        """Send a command of the protocol; :return: its result."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        message = await asyncio.wait_for(self._waiting[number], ANSWER_S)
        if "error" in message:
            raise PageError(f"{method}: {message['error']}")
        result: Json = message["result"]
        return result

    async def go(self, url: str) -> None:
        """Open an address and wait for its load event."""
        self._loaded.clear()
        await self.command("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), START_S)

    async def reload(self) -> None:
        """Load the page again, as F5 does."""
        self._loaded.clear()
        await self.command("Page.reload")
        await asyncio.wait_for(self._loaded.wait(), START_S)

    async def evaluate(self, expression: str) -> Any:
        """Evaluate a JavaScript expression, awaiting a promise; :return: its value."""
        answer = await self.command(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    async def until(self, expression: str, timeout_s: float = 60.0) -> None:
        """Wait until a JavaScript expression is true."""
        check = f"""new Promise((resolve, reject) => {{
            const end = performance.now() + {min(timeout_s, ANSWER_S - 5) * 1000};
            const look = () => {{
                const value = {expression};
                if (value || performance.now() > end) resolve(!!value); else setTimeout(look, 20);
            }};
            look();
        }})"""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while not await self.evaluate(check):
            if loop.time() > end:
                text = await self.evaluate("document.body.innerText")
                raise TimeoutError(
                    f"not within {timeout_s} s: {expression}; the page says:\n{text}"
                )

    async def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        x, y = await self.evaluate(
            f"""(() => {{
                const element = document.querySelector({json.dumps(selector)});
                element.scrollIntoView({{ block: "nearest" }});
                const box = element.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.command(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    async def type(self, text: str) -> None:
        """Type into the focused element."""
        await self.command("Input.insertText", text=text)

    async def press(self, key: str, code: int, modifiers: int = 0) -> None:
        """Press and release a key. ``code``: its Windows virtual key code. Modifier 8 is Shift."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.command(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                modifiers=modifiers,
                **(text if kind == "keyDown" else {}),
            )

    async def resize(self, width: int, height: int, scale: float = 1.0) -> None:
        """Set the size of the view in CSS pixels; below a width of 500 it is a phone."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 500,
        )

    async def prefer(self, scheme: str, motion: str = "no-preference") -> None:
        """Set the preferred colour scheme ("light", "dark") and motion ("reduce")."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        await self.command("Emulation.setEmulatedMedia", features=features)

    async def screenshot(self) -> bytes:
        """The view as PNG."""
        picture = await self.command("Page.captureScreenshot", format="png")
        return base64.b64decode(picture["data"])


class Chromium:
    """A running browser. Use `Chromium.start` as an asynchronous context manager."""

    def __init__(self, address: str) -> None:
        self._address = address  # of the browser's own debugging socket

    @staticmethod
    @asynccontextmanager
    async def start(path: str) -> AsyncIterator[Chromium]:
        """Start the browser at ``path`` with an empty profile, and end it again."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()  # root cannot have one
            process = await asyncio.create_subprocess_exec(
                *(path, *FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                yield Chromium(await asyncio.wait_for(_debugging_address(process), START_S))
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    @asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        """A new tab."""
        async with websockets.connect(self._address, max_size=None) as browser:
            await browser.send(
                '{"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}'
            )
            target = json.loads(await browser.recv())["result"]["targetId"]
        root = self._address.rpartition("/devtools/")[0]
        async with websockets.connect(f"{root}/devtools/page/{target}", max_size=None) as socket:
            page = Page(socket)
            listener = asyncio.create_task(page.listen())
            try:
                for domain in ("Page", "Runtime", "Log"):
                    await page.command(f"{domain}.enable")
                yield page
            finally:
                await socket.close()
                await listener


async def _debugging_address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        if b"DevTools listening on" in line:
            return line.decode().split()[-1]
    raise RuntimeError(f"the browser ended with {await process.wait()} before it listened")
