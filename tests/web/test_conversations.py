"""Conversations in a real browser: kept, found, renamed, deleted, in files; versions; settings."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

import pytest
from chromium import Chromium, Page

from tests.support.programs import CHROMIUM, needs
from tests.web.browsing import (
    ANSWER,
    DONE,
    ENTER,
    ESCAPE,
    FOCUS,
    OPEN,
    TEXT,
    TURNS,
    ask,
    click_text,
    press_control,
    set_pace,
)
from tests.web.scripted_server import ScriptedServer

pytestmark = [
    needs(CHROMIUM),
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
]

ROWS = "[...document.querySelectorAll('.row-title')].map(e => e.innerText)"


async def asked(page: Page, *questions: str) -> None:
    """Ask questions, one after another, each to its end."""
    for question in questions:
        before = await page.evaluate(TURNS)
        await ask(page, question)
        await page.until(f"{TURNS} === {before + 1}")
        await page.until(DONE)


async def rows_are(page: Page, *titles: str) -> None:
    text = json.dumps(list(titles), separators=(",", ":"))
    await page.until(f"JSON.stringify({ROWS}) === {json.dumps(text)}")


async def test_new_chat_throws_nothing_away(page: Page) -> None:
    await set_pace(page, 41)
    await asked(page, "First question")
    await page.click("[data-action=new]")
    await page.until(f"{TURNS} === 0")
    assert await page.evaluate(FOCUS) == "TEXTAREA"
    await asked(page, "Second question")
    await page.until(f"{ROWS}.length === 2")
    await click_text(page, ".row-title", "First question")
    await page.until("document.querySelector('.question').innerText.includes('First')")
    assert "623" in await page.evaluate(ANSWER)
    assert await page.evaluate("document.title") == "First question · pascal"


async def test_a_new_tab_has_the_list_and_the_settings(
    stack: AsyncExitStack, chromium: Chromium, page: Page, scripted: ScriptedServer
) -> None:
    await set_pace(page, 41)
    await asked(page, "Kept for ever")
    await page.until(f"{ROWS}.length === 1")
    other = await stack.enter_async_context(chromium.page())
    await other.resize(1040, 740)
    await other.go(scripted.url)
    await other.until(OPEN)
    assert await other.evaluate(TURNS) == 0
    assert "As generated" in await other.evaluate("document.querySelector('.pace').innerText")
    await click_text(other, ".row-title", "Kept for ever")
    await other.until(f"{ANSWER}.includes('623')")
    # What one tab writes, the other sees.
    await asked(other, "And then?")
    await page.command("Page.bringToFront")
    await page.until(f"{TURNS} === 2")
    await page.until(DONE)
    assert page.complaints == other.complaints == []


async def test_back_and_links_lead_to_conversations(page: Page, scripted: ScriptedServer) -> None:
    await set_pace(page, 41)
    await asked(page, "First question")
    first = await page.evaluate("location.hash")
    await page.click("[data-action=new]")
    await page.until(f"{TURNS} === 0 && location.hash === ''")
    await asked(page, "Second question")
    question = "document.querySelector('.question')?.innerText.trim()"
    await page.evaluate("history.back()")
    await page.until(f"{TURNS} === 0")
    await page.evaluate("history.back()")
    await page.until(f"{question} === 'First question'")
    await page.evaluate("history.go(2)")
    await page.until(f"{question} === 'Second question'")
    await page.go("about:blank")
    await page.go(f"{scripted.url}{first}")
    await page.until(f"{question} === 'First question'")
    await page.evaluate("location.hash = '#nobody'")
    await page.until(f"location.hash === {first!r}")


async def test_rename_delete_and_undo(page: Page) -> None:
    await set_pace(page, 41)
    await asked(page, "A sum")
    await page.until(f"{ROWS}.length === 1")
    await page.click(".row-more")
    await click_text(page, ".row-menu button", "Rename")
    await page.until("document.activeElement.closest('.name-form')")
    await page.type("Sums of numbers")
    await page.press(*ENTER)
    await rows_are(page, "Sums of numbers")
    await page.until("document.title === 'Sums of numbers · pascal'")
    await page.click(".row-more")
    await click_text(page, ".row-menu button", "Delete")
    await rows_are(page)
    await page.until(f"{TURNS} === 0")
    await click_text(page, ".sidebar-note button", "Undo")
    await rows_are(page, "Sums of numbers")
    await click_text(page, ".row-title", "Sums of numbers")
    await page.until(f"{ANSWER}.includes('623')")


async def test_search_by_keyboard(page: Page) -> None:
    await set_pace(page, 41)
    await asked(page, "About elephants")
    await page.click("[data-action=new]")
    await asked(page, "About whales")
    await page.until(f"{ROWS}.length === 2")
    await press_control(page, "k")
    await page.until("document.activeElement.type === 'search'")
    await page.type("elephants hundreds")
    await rows_are(page, "About elephants")
    await page.press(*ESCAPE)
    await page.until(f"{ROWS}.length === 2")
    await press_control(page, "o", shift=True)
    await page.until(f"{TURNS} === 0")


async def test_files_go_out_and_come_back(page: Page) -> None:
    await set_pace(page, 41)
    await asked(page, "Keep this")
    await page.until(f"{ROWS}.length === 1")
    await page.evaluate(
        "globalThis.saved = []; const make = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { saved.push(blob.text()); return make(blob); }"
    )
    for item in ("Export Markdown", "Export JSON"):
        await page.click(".row-more")
        await click_text(page, ".row-menu button", item)
    await page.until("saved.length === 2")
    markdown, document = await page.evaluate("Promise.all(saved)")
    assert "## Question\n\nKeep this" in markdown
    assert "348 + 275 = **623**." in markdown
    assert json.loads(document)["conversations"][0]["turns"][0]["question"] == "Keep this"
    await page.click(".row-more")
    await click_text(page, ".row-menu button", "Delete")
    await rows_are(page)
    await page.evaluate(
        f"""(() => {{
            const files = new DataTransfer();
            files.items.add(new File([{json.dumps(document)}], 'a.json'));
            files.items.add(new File([{json.dumps(markdown)}], 'b.md'));
            const input = document.querySelector('input[type=file]');
            input.files = files.files;
            input.dispatchEvent(new Event('change', {{ bubbles: true }}));
        }})()"""
    )
    await page.until(f"{TEXT}.includes('2 conversations imported.')")
    await rows_are(page, "Keep this", "Keep this")
    assert page.complaints == []


async def test_a_version_is_deleted_and_brought_back(page: Page) -> None:
    versions = "(document.querySelector('.versions')?.innerText ?? '')"
    await set_pace(page, 41)
    await asked(page, "Why?")
    await page.click(".actions button:nth-of-type(2)")
    await page.until(f"{versions}.includes('2 of 2')")
    await page.until(DONE)
    await page.click("[aria-label='Delete this version']")
    await page.until(f"{versions} === '' && {TEXT}.includes('Version deleted.')")
    assert await page.evaluate(FOCUS) == "TEXTAREA"
    await page.reload()  # it stays deleted, and cannot be brought back any more
    await page.until(f"{TURNS} === 1 && {DONE}")
    assert await page.evaluate(versions) == ""
    await page.click(".actions button:nth-of-type(2)")
    await page.until(f"{versions}.includes('2 of 2')")
    await page.until(DONE)
    await page.click("[aria-label='Delete this version']")
    await click_text(page, ".banner button", "Undo")
    await page.until(f"{versions}.includes('2 of 2') && !{TEXT}.includes('Version deleted.')")
    assert page.complaints == []


@pytest.mark.parametrize("allowed", [True, False])
async def test_the_operations_page_is_linked_for_those_who_may_open_it(
    page: Page, scripted: ScriptedServer, allowed: bool
) -> None:
    scripted.operations = allowed
    await page.reload()
    await page.until(OPEN)
    await page.until("document.querySelector('.model').innerText === 'scripted-reasoner'")
    assert await page.evaluate("!!document.querySelector('.sidebar a[href=\"/ops\"]')") is allowed


async def test_the_place_in_the_queue_is_shown_while_a_request_waits(
    page: Page, scripted: ScriptedServer
) -> None:
    scripted.ahead = 3
    await ask(page, "wait, please")
    await page.until(f"{TEXT}.includes('3 requests wait before yours.')")
    scripted.ahead = 0
    await page.until(f"{TEXT}.includes('No request waits before yours.')")
    await page.press(*ESCAPE)
    await page.until("document.querySelector('.turn[data-state=incomplete]')")


async def test_versions_and_an_edited_question(page: Page, scripted: ScriptedServer) -> None:
    await set_pace(page, 41)
    await asked(page, "Why?")
    await page.click(".actions button:nth-of-type(2)")
    assert await page.evaluate(FOCUS) == "TEXTAREA"
    await page.until("document.querySelector('.versions')?.innerText.includes('2 of 2')")
    await page.until(DONE)
    await page.click("[aria-label='Version before']")
    await page.until("document.querySelector('.versions').innerText.includes('1 of 2')")
    await page.evaluate("document.querySelector('.edit').click()")
    await page.until("document.querySelector('.composer textarea').value === 'Why?'")
    await page.evaluate("document.querySelector('.composer textarea').select()")
    await page.type("How?")
    await page.press(*ENTER)
    await page.until("document.querySelector('.versions')?.innerText.includes('3 of 3')")
    await page.until(DONE)
    creates = [r for r in scripted.requests if r["type"] == "response.create"]
    assert [r["input"] for r in creates] == ["Why?", "Why?", "How?"]
    assert "previous_response_id" not in creates[-1]
    await page.reload()
    await page.until("document.querySelector('.versions')?.innerText.includes('3 of 3')")
    # The arrow edits the last question.
    await page.evaluate("document.querySelector('.composer textarea').focus()")
    await page.press("ArrowUp", 38)
    await page.until("document.querySelector('.composer textarea').value === 'How?'")
    await page.press(*ESCAPE)
    await page.until("document.querySelector('.composer textarea').value === ''")


async def test_a_refused_question_can_be_edited(page: Page) -> None:
    await ask(page, "an oversize text")
    await page.until("document.querySelector('.error-card[role=alert]')")
    text = await page.evaluate("document.querySelector('.error-card').innerText")
    assert "The question is too long" in text
    assert "Nothing was asked" in text
    await click_text(page, ".error-card button", "Edit the question")
    value = "document.querySelector('.composer textarea').value"
    await page.until(f"{value} === 'an oversize text'")
    await page.evaluate("document.querySelector('.composer textarea').select()")
    await page.type("a short text")
    await page.press(*ENTER)
    await page.until(DONE)
    assert await page.evaluate(TURNS) == 1


async def test_a_question_in_the_queue(page: Page, scripted: ScriptedServer) -> None:
    await set_pace(page, 40)
    await ask(page, "one")
    await page.until(f"{ANSWER}.length > 10")
    await ask(page, "two")
    await page.until(f"{TEXT}.includes('Sent after this answer')")
    await page.until(f"{TURNS} === 2")
    await page.until(DONE)
    inputs = [r["input"] for r in scripted.requests if r["type"] == "response.create"]
    assert inputs == ["one", "two"]


async def test_answer_now(page: Page, scripted: ScriptedServer) -> None:
    scripted.step_s = 0.4
    await ask(page, "Think slowly")
    await page.until("document.querySelector('.answer-now')")
    await page.click(".answer-now")
    await page.until(f"{ANSWER}.length > 10")
    last = [r for r in scripted.requests if r["type"] == "response.create"][-1]
    assert last["chat_template_kwargs"] == {"enable_thinking": False}
    assert last["input"] == "Think slowly"
    assert await page.evaluate(TURNS) == 1
    await page.press(*ESCAPE)


async def test_settings_are_sent_and_shared(
    stack: AsyncExitStack, chromium: Chromium, page: Page, scripted: ScriptedServer
) -> None:
    await page.click("[aria-label=Settings]")
    await page.until("document.querySelector('dialog[open]')")
    await page.evaluate("document.querySelector('#setting-system').focus()")
    await page.type("Be brief.")
    await page.evaluate("document.querySelector('#setting-length').focus()")
    await page.type("700")
    await page.evaluate("document.querySelector('[name=theme][value=dark]').click()")
    await page.until("document.documentElement.dataset.theme === 'dark'")
    await page.press(*ESCAPE)
    await page.until("!document.querySelector('dialog')")
    assert await page.evaluate("document.activeElement.ariaLabel") == "Settings"
    other = await stack.enter_async_context(chromium.page())
    await other.go(scripted.url)
    await other.until(OPEN)
    assert await other.evaluate("document.documentElement.dataset.theme") == "dark"
    await set_pace(page, 41)
    await other.until("document.querySelector('.pace').innerText.includes('As generated')")
    await ask(other, "Why?")
    await other.until(f"{ANSWER}.length > 0")
    (create,) = [r for r in scripted.requests if r["type"] == "response.create"]
    assert (create["instructions"], create["max_output_tokens"]) == ("Be brief.", 700)


async def test_the_reading_test_sets_the_pace(page: Page) -> None:
    await page.click(".pace-button")
    await click_text(page, ".pace-panel button", "Find my pace in 10 seconds")
    await click_text(page, "dialog button", "Start reading")
    await page.until("document.querySelector('.reading-text[data-step=marking]')", 15)
    await page.evaluate("document.querySelector('[data-word=\"50\"]').click()")
    await click_text(page, "dialog button", "Read at 300 words a minute")
    await page.until("document.querySelector('.pace-button').innerText.includes('300 wpm')")


async def test_the_list_of_shortcuts(page: Page) -> None:
    await page.evaluate("document.activeElement.blur()")
    await page.command("Input.dispatchKeyEvent", type="keyDown", key="?", text="?", modifiers=8)
    await page.until("document.querySelector('dialog.shortcuts[open]')")
    assert "search the conversations" in await page.evaluate(TEXT)
    await page.press(*ESCAPE)
    await page.until("!document.querySelector('dialog')")


async def test_page_up_scrolls_from_the_composer(page: Page) -> None:
    await page.resize(600, 420)
    await set_pace(page, 41)
    await asked(page, "one", "two", "three")
    top = "document.querySelector('main').scrollTop"
    await page.until(f"{top} > 300")
    before = await page.evaluate(top)
    await page.evaluate("document.querySelector('.composer textarea').focus()")
    await page.press("PageUp", 33)
    await page.until(f"{top} < {before} - 100")
    assert await page.evaluate(FOCUS) == "TEXTAREA"


async def test_the_tab_says_that_the_answer_is_there(
    stack: AsyncExitStack, chromium: Chromium, page: Page, scripted: ScriptedServer
) -> None:
    await set_pace(page, 40)
    await ask(page, "Why?")
    await page.until("document.title.startsWith('Answering… · Why?')")
    icon = "document.querySelector('link[rel=icon]').href.split('/').at(-1)"
    assert await page.evaluate(icon) == "favicon-busy.svg"
    await page.evaluate(
        "Object.defineProperty(document, 'visibilityState',"
        " { value: 'hidden', configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    await page.until("document.title.startsWith('✓ Answer ready · Why?')")
    assert await page.evaluate(icon) == "favicon-done.svg"
    await page.evaluate(
        "delete document.visibilityState; document.dispatchEvent(new Event('visibilitychange'))"
    )
    await page.until("document.title === 'Why? · pascal'")


@pytest.mark.parametrize("text", ["{}", "null", "{oops", '{"turns":[{}]}'])
async def test_a_broken_storage_does_not_stop_the_page(page: Page, text: str) -> None:
    for name in ("pascal.chat.1", "pascal.chat.2", "pascal.draft"):
        await page.evaluate(f"sessionStorage.setItem({name!r}, {json.dumps(text)})")
    await page.evaluate(f"localStorage.setItem('pascal.settings.1', {json.dumps(text)})")
    # A page that leaves writes its own state.
    await page.evaluate("Storage.prototype.setItem = () => {}")
    await page.reload()
    await page.until(OPEN)
    await set_pace(page, 41)
    await page.evaluate("document.querySelector('.composer textarea').select()")
    await page.type("Why?")
    await page.press(*ENTER)
    await page.until(DONE)
    assert page.complaints == []


async def test_the_manifest_is_one(page: Page) -> None:
    found = await page.command("Page.getAppManifest")
    assert found["errors"] == []
    assert json.loads(found["data"])["start_url"] == "/"


async def test_the_key_form(chromium: Chromium) -> None:
    async with ScriptedServer(api_key="secret") as locked, chromium.page() as page:
        await page.resize(1040, 740)
        await page.go(locked.url)
        await page.until("document.activeElement.id === 'api-key'")
        for width in (320, 390, 1040):
            await page.resize(width, 740)
            buttons = "[...document.querySelectorAll('.key-form button')]"
            edges = f"{buttons}.map((e) => e.getBoundingClientRect().right)"
            assert max(await page.evaluate(edges)) <= width
        await page.type("secre")
        await page.press(*ENTER)
        await page.until(f"{TEXT}.includes('not accepted')")
        await page.until("document.querySelector('#api-key').value === 'secre'")
        assert await page.evaluate("document.querySelector('#api-key').type") == "password"
        await click_text(page, ".key-form button", "Show")
        assert await page.evaluate("document.querySelector('#api-key').type") == "text"
        assert await page.evaluate("document.querySelector('[aria-label=Send]').disabled")
        await page.evaluate("document.querySelector('#api-key').focus()")
        await page.press("End", 35)
        await page.type("t")
        await page.press(*ENTER)
        await page.until(OPEN)
        await page.until(f"{FOCUS} === 'TEXTAREA'")
