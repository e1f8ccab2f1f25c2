"""A page that shows an answer given by the test, for the tests of what answers look like."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from chromium import Chromium, Page

from tests.web import scripted_server
from tests.web.browsing import DONE, OPEN, ask, set_pace
from tests.web.scripted_server import ScriptedServer

ESCAPE = ("Escape", 27)
LAST = "document.querySelector('.turn:last-child .answer')"
UNPACED = 41

RICH = r"""# The whole of Markdown

An opening with **strength**, `code`, H<sub>2</sub>O and a [link](https://example.org). $5 and $10.

## Mathematics

The roots are \(x = \frac{-b \pm \sqrt{b^2-4ac}}{2a}\) and $e^{i\pi} + 1 = 0$, so

\[
\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt{\pi}}{2} \quad \boxed{x = 42}
\]

\begin{align}
f(x) &= \begin{cases} 1 & x > 0 \\ 0 & \text{else} \end{cases}
\end{align}

### Code

```python
def fib(n: int) -> int:
    "A very long line that does not fit: it is longer than any column of text on a screen."
    return n if n < 2 else fib(n - 1) + fib(n - 2)  # slow
```

```mermaid
graph LR; A-->B
```

```
no language
```

| instance | tokens per second | first token | boundary | quality of experience | comment |
| --- | --: | --: | --: | --: | --- |
| instance-0 | 1,204 | 0.42 s | 0.02 s | 0.998 | nothing to say about it |
| instance-1 | 998 | 0.51 s | 0.03 s | 0.991 | preempted twice |

- [x] done
- [ ] to do

A note[^1] here, and ![a picture](https://example.org/cat.png).

<details><summary>More of it</summary>

Hidden **text**.

</details>

> A quote.

مرحبا بالعالم، كيف حالك؟

[^1]: The note itself.
"""


@dataclass
class Reader:
    """A page and the server behind it."""

    page: Page
    server: ScriptedServer

    async def resize(self, width: int, height: int) -> None:
        await self.page.resize(width, height)

    async def ask(self, question: str = "Show it", pace: int = UNPACED) -> None:
        await set_pace(self.page, pace)
        await ask(self.page, question)

    async def ask_all(self, question: str = "Show it") -> None:
        """Ask, and wait for the whole answer and for what draws it."""
        await self.ask(question)
        await self.page.until(DONE)
        await self.settle()

    async def settle(self) -> None:
        """Wait until formulas and code are drawn: their libraries come with the first of them."""
        await self.page.until(
            "document.querySelector('.block') && "
            "[...document.querySelectorAll('[data-math]')].every((e) => e.dataset.source) && "
            "[...document.querySelectorAll('pre[data-lang=python]')]"
            ".every((e) => e.querySelector('span[class^=hljs]'))"
        )

    async def stop(self) -> None:
        await self.page.press(*ESCAPE)
        await self.page.until("document.querySelector('.turn:last-child .actions')")

    async def get(self, expression: str) -> Any:
        return await self.page.evaluate(expression)

    async def count(self, selector: str) -> int:
        found: int = await self.get(f"document.querySelectorAll({json.dumps(selector)}).length")
        return found


@asynccontextmanager
async def reading(
    browser: Chromium,
    monkeypatch: pytest.MonkeyPatch,
    answer: str = RICH,
    *,
    size: tuple[int, int] = (1040, 740),
    script: str = "",
) -> AsyncIterator[Reader]:
    """A page whose answers are ``answer``. ``script`` runs before those of the page."""
    monkeypatch.setattr(scripted_server, "ANSWER", answer)
    async with ScriptedServer() as server, browser.page() as page:
        await page.resize(*size)
        if script:
            await page.command("Page.addScriptToEvaluateOnNewDocument", source=script)
        await page.go(server.url)
        await page.until(OPEN)
        yield Reader(page, server)
