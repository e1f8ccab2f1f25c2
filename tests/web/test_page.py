"""The chat page in a headless Chromium, against a scripted server and against the real gateway."""

from __future__ import annotations

import re

import pytest
from chromium import Chromium, Page

from tests.support.programs import CHROMIUM, needs
from tests.support.server import Server
from tests.web.browsing import ANSWER, DONE, ENTER, ESCAPE, OPEN, SHIFT, TEXT, ask, set_pace
from tests.web.scripted_server import THOUGHTS, ScriptedServer

pytestmark = [
    needs(CHROMIUM),
    pytest.mark.asyncio(loop_scope="module"),
]


async def test_an_answer_from_question_to_figures(page: Page, scripted: ScriptedServer) -> None:
    await set_pace(page, 40)
    await ask(page, "What is 348 + 275?")
    button = "document.querySelector('.thinking-button')"
    await page.until(f"{button}?.getAttribute('aria-expanded') === 'true'")
    await page.until("document.querySelector('.thoughts-text').innerText.includes('digits')")
    await page.until(f"{ANSWER}.length > 10")
    assert await page.evaluate(f"{button}.getAttribute('aria-expanded')") == "false"
    assert await page.evaluate(f"{button}.innerText") == "Thought for 12 s"
    # The line moves while the answer grows.
    await page.evaluate("document.querySelector('.delivery-line').click()")
    await page.until("document.querySelectorAll('.picture polyline').length === 3")
    await page.until(DONE)
    shown = await page.evaluate("document.querySelector('.answer').innerHTML")
    assert "<strong>623</strong>" in shown
    assert shown.count("<li>") == 3
    assert "<table>" in shown
    assert "<code>" in shown
    assert "<img" not in shown
    assert "a trap" in shown
    assert "javascript:" not in shown
    assert 'rel="noopener noreferrer nofollow"' in shown
    figures = await page.evaluate("document.querySelector('.figures').innerText")
    told = figures.replace("\n", " ")
    pattern = (
        r"TTFT 1\.3 s TTFAT 0\.02 s QoE released 0\.997 QoE read [01]\.\d+ Waits \d+ "
        r"Pace 40\.0 tok/s Engine 83\.3 tok/s"
    )
    assert re.fullmatch(pattern, told)
    assert scripted.requests[0]["pacing"]["tpot_s"] == 0.025
    assert await page.evaluate("document.querySelector('.app > [role=status]').innerText") == (
        "The answer is complete."
    )
    assert await page.evaluate("document.querySelector('[role=log]').ariaLive") == "off"
    assert page.complaints == []


async def test_the_readers_choice_of_the_panel_stays(page: Page) -> None:
    await set_pace(page, 41)
    await ask(page, "Why?")
    await page.until("document.querySelector('.thoughts-text')")
    await page.click(".thinking-button")
    await page.until("document.querySelector('.thoughts').hidden")
    await page.click(".thinking-button")
    await page.until(DONE)
    text = await page.evaluate("document.querySelector('.thoughts-text').innerText")
    assert text == THOUGHTS
    assert page.complaints == []


@pytest.mark.parametrize("how", ["button", "Escape"])
async def test_stop(page: Page, scripted: ScriptedServer, how: str) -> None:
    await ask(page, "hold on")
    await page.until(f"{ANSWER}.length > 30")
    await (page.press(*ESCAPE) if how == "Escape" else page.click("[aria-label=Stop]"))
    await page.until("document.querySelector('.turn[data-state=incomplete] .actions')")
    sent = [r["type"] for r in scripted.requests if "read" not in r]
    assert sent == ["response.create", "response.cancel"]
    note = "document.querySelector('.ended-early').innerText"
    assert await page.evaluate(note) == "Stopped."
    final = scripted.responses["resp_1"].events[-1]["response"]["output"][1]["content"][0]["text"]
    shown = await page.evaluate(ANSWER)
    assert shown.split()[:10] == final.replace("*", "").split()[:10]
    assert len(shown) > 30
    assert page.complaints == []


async def test_pause_holds_the_text_and_reading_on_goes_on(
    page: Page, scripted: ScriptedServer
) -> None:
    await set_pace(page, 20)
    await ask(page, "hold on")
    await page.until(f"{ANSWER}.length > 30")
    await page.click("[aria-label='Pause reading']")
    await page.until("document.querySelector('[aria-label=\"Go on reading\"]')")
    length = await page.evaluate(f"{ANSWER}.length")
    # Ten browser frames later nothing has moved.
    await page.evaluate(
        "new Promise((done) => { let n = 0; const f = () => "
        "(++n > 10 ? done() : requestAnimationFrame(f)); f(); })"
    )
    assert await page.evaluate(f"{ANSWER}.length") == length
    await page.click("[aria-label='Go on reading']")
    await page.until(f"{ANSWER}.length > {length}")
    updates = [r for r in scripted.requests if "paused" in r]
    assert [update["paused"] for update in updates] == [True, False]
    await page.press(*ESCAPE)
    await page.until("document.querySelector('.turn[data-state=incomplete]')")


@pytest.mark.parametrize("how", ["break", "reload"])
async def test_resumes_after_a_broken_socket_and_after_a_reload(
    page: Page, scripted: ScriptedServer, how: str
) -> None:
    await set_pace(page, 20)
    await ask(page, f"please {how}")
    await page.until(f"{ANSWER}.length > 30")
    if how == "reload":
        await page.reload()
    await page.until(DONE)
    resumes = [r for r in scripted.requests if r["type"] == "response.resume"]
    assert len(resumes) == 1
    assert resumes[0]["starting_after"] > 20  # behind the thoughts, which it had
    text = await page.evaluate(ANSWER)
    assert text.startswith("348 + 275 = 623.\n\nI added the numbers column by column:")
    assert text.endswith("checked.")
    assert text.count("the tens give 12") == 1
    # The browser itself reports a broken connection.
    assert [c for c in page.complaints if "WebSocket" not in c] == []


async def test_an_answer_that_cannot_be_resumed_is_said_to_be(page: Page) -> None:
    await set_pace(page, 20)
    await ask(page, "be gone")
    await page.until("document.querySelector('.turn[data-state=failed] .error-card')")
    assert "The rest of this answer is lost" in await page.evaluate(TEXT)
    assert (await page.evaluate(ANSWER)).startswith("348 + 275 = 623.")


async def test_a_full_server_is_asked_again(page: Page, scripted: ScriptedServer) -> None:
    await ask(page, "refuse me")
    await page.until(f"{TEXT}.includes('The server is full.')")
    for left in (3, 2, 1):
        await page.until(f"{TEXT}.includes('It is sent again in {left} s.')")
    await page.until(f"{TEXT}.includes('It is sent again in 3 s.')")
    assert len(scripted.requests) == 2
    assert scripted.requests[0] == scripted.requests[1]
    await page.click("[aria-label=Stop]")
    await page.until(f"{TEXT}.includes('Stopped before the server took it.')")
    await page.until("document.querySelector('.actions')")


async def test_a_response_that_fails_keeps_what_came(page: Page) -> None:
    await set_pace(page, 41)
    await ask(page, "fail now")
    await page.until("document.querySelector('.turn[data-state=failed] .error-card')")
    assert "348 + 275" in await page.evaluate(ANSWER)
    assert "The engine failed." in await page.evaluate("document.body.innerText")


async def test_several_turns(page: Page, scripted: ScriptedServer) -> None:
    await set_pace(page, 41)
    await page.click(".chip")
    await page.until(DONE)
    await ask(page, "forget it")
    await page.until("document.querySelectorAll('.turn').length === 2")
    await page.until(DONE)
    first, refused, again = [r for r in scripted.requests if "read" not in r]
    assert "previous_response_id" not in first
    assert refused["previous_response_id"] == "resp_1"
    assert [turn["role"] for turn in again["input"]] == ["user", "assistant", "user"]
    await page.click("[data-action=new]")
    await page.until("document.querySelector('.welcome')")


async def test_enter_shift_enter_and_input_methods(page: Page, scripted: ScriptedServer) -> None:
    await page.evaluate("document.querySelector('.composer textarea').focus()")
    await page.type("one")
    await page.press(*ENTER, modifiers=SHIFT)
    await page.command("Input.imeSetComposition", text="に", selectionStart=1, selectionEnd=1)
    await page.evaluate(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', "
        "{ key: 'Enter', isComposing: true, bubbles: true, cancelable: true }))"
    )
    await page.command("Input.insertText", text="日本")
    assert scripted.requests == []
    await page.press(*ENTER)
    await page.until("document.querySelector('.question')")
    assert scripted.requests[0]["input"] == "one\n日本"
    await page.press(*ESCAPE)


async def test_following_ends_and_resumes_by_the_readers_hand(page: Page) -> None:
    await page.resize(600, 420)
    await set_pace(page, 40)
    await ask(page, "hold on")
    gap = (
        "(() => { const m = document.querySelector('main'); "
        "return m.scrollHeight - m.clientHeight - m.scrollTop; })()"
    )
    # With the answer the thoughts fold up, and for a moment there is nothing to scroll.
    await page.until(f"{ANSWER}.length > 200")
    await page.until("document.querySelector('main').scrollTop > 100")
    assert await page.evaluate(gap) <= 1
    await page.command(
        "Input.dispatchMouseEvent", type="mouseWheel", x=300, y=200, deltaX=0, deltaY=-150
    )
    await page.until("document.querySelector('.jump')")
    await page.until(f"{gap} > 200")
    await page.click(".jump")
    await page.until(f"{gap} <= 1 && !document.querySelector('.jump')")
    # What the page does between the reader's scrolling and its event does not undo it.
    await page.evaluate(
        "document.querySelector('main').scrollTop -= 150, dispatchEvent(new Event('resize'))"
    )
    await page.until("document.querySelector('.jump')")
    await page.press(*ESCAPE)
    assert page.complaints == []


@pytest.mark.parametrize("width", [320, 360, 375, 1040])
async def test_fits_the_width(page: Page, width: int) -> None:
    await page.resize(width, 740)
    await set_pace(page, 41)
    await ask(page, "hold on, with a long wordwordwordwordwordwordwordwordwordwordwordwordwordword")
    await page.until(f"{ANSWER}.length > 30")
    wide = f"""[...document.querySelectorAll('.app *')]
        .filter((element) => element.getBoundingClientRect().right > {width} + 1)
        .filter((element) => !element.closest('pre, table, .visually-hidden'))
        .map((element) => element.className || element.tagName)"""
    assert await page.evaluate(wide) == []
    await page.press(*ESCAPE)


async def test_asks_for_the_key_and_takes_it(chromium: Chromium) -> None:
    async with ScriptedServer(api_key="secret") as locked, chromium.page() as page:
        await page.go(locked.url)
        await page.until("document.querySelector('.key-form')")
        await page.evaluate("document.querySelector('#api-key').focus()")
        await page.type("wrong")
        await page.press(*ENTER)
        await page.until("document.querySelector('.key-form')?.innerText.includes('not accepted')")
        await page.evaluate("document.querySelector('#api-key').select()")
        await page.type("secret")
        await page.press(*ENTER)
        await page.until(OPEN)
        await page.until("document.querySelector('.model').innerText === 'scripted-reasoner'")
        assert await page.evaluate("document.querySelector('.key-form')") is None


@pytest.mark.engine
@pytest.mark.slow
async def test_with_the_real_gateway(chromium: Chromium, server: Server) -> None:
    async with chromium.page() as page:
        await page.go(server.url + "/")
        await page.until(OPEN)
        await set_pace(page, 40)
        await page.click(".chip")
        await page.until("document.querySelector('.thoughts-text')?.innerText.length > 20")
        await page.until(f"{ANSWER}.length > 0")
        await page.until(DONE)
        assert "623" in await page.evaluate(ANSWER)
        assert "Thought for" in await page.evaluate("document.querySelector('.thinking').innerText")
        await page.click(".delivery-line")
        await page.until("document.querySelector('.figures')")
        figures = await page.evaluate("document.querySelector('.figures').innerText")
        assert "\u2013" not in figures  # the dash of a figure that is not there

        await set_pace(page, 2)
        await ask(page, "Which is larger, 4711 or 4171?")
        await page.until(f"document.querySelectorAll('.turn').length === 2 && {ANSWER}.length > 5")
        await page.click("[aria-label=Stop]")
        await page.until("document.querySelector('.turn:last-child[data-state=incomplete]')")
        assert page.complaints == []
