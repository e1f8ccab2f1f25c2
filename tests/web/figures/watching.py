"""What is noted in the page while it works: by scripts of an observer, not by the page itself."""

from __future__ import annotations

from chromium import Page

# Before the page's own scripts: when the first text of an answer came, and the time of each frame.
# `now` is that of the last frame in which something could have been drawn.
EARLY = """
globalThis.seen = { message: null, grown: [], frames: [] };
const Socket = WebSocket;
globalThis.WebSocket = class extends Socket {
  constructor(...args) {
    super(...args);
    this.addEventListener("message", ({ data }) => {
      if (data.includes("response.output_text.delta")) seen.message ??= performance.now();
    });
  }
};
let last = null;
const frame = (at) => {
  if (last !== null) seen.frames.push(at - last);
  last = at;
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
let before = 0;
new MutationObserver(() => {
  const answers = document.querySelectorAll(".turn:last-child .answer");
  const length = answers.length ? answers[answers.length - 1].textContent.length : 0;
  const grown = length > before;
  before = length; // of a new answer it is 0 at first
  if (grown) seen.grown.push([performance.now(), length]);
}).observe(document, { subtree: true, childList: true, characterData: true });
"""
# When the field in which one writes can be used, the page is connected, and all of it is there.
LOADING = """
globalThis.at = {};
const note = (name) => { at[name] ??= performance.now() / 1000; };
const look = () => {
  const field = document.querySelector(".composer textarea");
  if (field && !field.disabled && field.getBoundingClientRect().width > 0) note("usable");
  if (document.querySelector(".connection")?.dataset.status === "open") note("connected");
  if (document.querySelector(".sidebar .sidebar-files")) note("complete");
  requestAnimationFrame(look);
};
look();
"""


async def watch(page: Page, script: str = EARLY) -> None:
    """Note from the next load of the page on."""
    await page.command("Page.addScriptToEvaluateOnNewDocument", source=script)


async def forget(page: Page) -> None:
    """Forget what was noted so far."""
    await page.evaluate("seen.message = null, seen.grown.length = 0, seen.frames.length = 0")


async def growth(page: Page) -> list[tuple[float, int]]:
    """Each growth of the newest answer: when in seconds, and its length in characters then."""
    return [(at / 1000, int(length)) for at, length in await page.evaluate("seen.grown")]


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
