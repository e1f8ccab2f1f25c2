"""What the tests of the page do with it, and how they see its state."""

from __future__ import annotations

from chromium import Page

ENTER, ESCAPE, SHIFT = ("Enter", 13), ("Escape", 27), 8

OPEN = "document.querySelector('.connection')?.dataset.status === 'open'"
DONE = "document.querySelector('.turn:last-child[data-state=completed] .actions')"
ANSWER = "(document.querySelector('.turn:last-child .answer')?.innerText ?? '')"
TEXT = "document.body.innerText"
TURNS = "document.querySelectorAll('.turn').length"
FOCUS = "document.activeElement.tagName"


async def ask(page: Page, question: str) -> None:
    """Type a question and send it."""
    await page.evaluate("document.querySelector('.composer textarea').focus()")
    await page.type(question)
    if await page.evaluate("matchMedia('(pointer: coarse)').matches"):  # Enter is a new line
        await page.until("!document.querySelector('[aria-label=Send]').disabled")
        await page.click("[aria-label=Send]")
    else:
        await page.press(*ENTER)


async def set_pace(page: Page, rate: int) -> None:
    """Move the slider to a rate in tokens per second; 41: as generated."""
    await page.evaluate(
        f"""import("/static/js/settings/pace.js").then(({{ positionOf }}) => {{
            const range = document.querySelector('.pace input');
            range.value = positionOf({rate} > 40 ? null : {rate});
            range.dispatchEvent(new Event('input', {{ bubbles: true }}));
        }})"""
    )


async def press_control(page: Page, key: str, *, shift: bool = False) -> None:
    """Press Ctrl and a letter."""
    await page.press(key, ord(key.upper()), modifiers=2 + (SHIFT if shift else 0))


async def click_text(page: Page, selector: str, text: str) -> None:
    """Click the first element of a selector with this text."""
    await page.until(
        f"[...document.querySelectorAll({selector!r})].some(e => e.innerText.trim() === {text!r})"
    )
    await page.evaluate(
        f"[...document.querySelectorAll({selector!r})]"
        f".find(e => e.innerText.trim() === {text!r}).click()"
    )
