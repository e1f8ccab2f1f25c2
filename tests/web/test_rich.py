"""Rich answers in a real browser: formulas, code, tables, notes, and the caret."""

from __future__ import annotations

import json

import pytest
from chromium import Chromium

from tests.support.programs import CHROMIUM, needs
from tests.web.answers import LAST, RICH, reading
from tests.web.browsing import DONE

pytestmark = [needs(CHROMIUM), pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]

CARET = "document.querySelector('.answer .caret')"
LOADED = "performance.getEntriesByType('resource').map((entry) => entry.name).join(' ')"


async def test_formulas(browser: Chromium, monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(browser, monkeypatch) as reader:
        await reader.ask_all()
        assert await reader.count(".answer math") == 4
        assert await reader.count(".answer math[display=block]") == 2
        assert await reader.count(".answer math mfrac") >= 2
        assert await reader.count(".answer :is(annotation, [style])") == 0
        text = await reader.get(f"{LAST}.innerText")
        assert "$5 and $10." in text
        assert "\\frac" not in text
        assert reader.page.complaints == []


async def test_libraries_come_with_what_needs_them(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(browser, monkeypatch, "Only *words*, for $5.") as reader:
        await reader.ask_all()
        loaded = await reader.get(LOADED)
        assert "marked" in loaded
        assert "katex" not in loaded
        assert "highlight" not in loaded


async def test_a_formula_that_katex_does_not_know_stays_as_written(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(browser, monkeypatch, r"So $\nosuchthing{x$ and $\frac{1}{2}$.") as reader:
        await reader.ask()
        await reader.page.until(DONE)
        await reader.page.until(f"{LAST}.querySelector('math')")
        assert r"So $\nosuchthing{x$ and" in await reader.get(f"{LAST}.innerText")
        assert reader.page.complaints == []


async def test_a_selected_formula_is_copied_as_its_source(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = r"Half is \(\frac{1}{2}\), you see."
    async with reading(browser, monkeypatch, answer) as reader:
        await reader.ask_all()
        copied = await reader.get(
            f"""(() => {{
                getSelection().selectAllChildren({LAST});
                const data = new DataTransfer();
                {LAST}.dispatchEvent(
                    new ClipboardEvent("copy", {{ clipboardData: data, bubbles: true }}));
                return data.getData("text/plain").trim();
            }})()"""
        )
        assert copied == answer


async def test_code(browser: Chromium, monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(browser, monkeypatch) as reader:
        await reader.ask_all()
        labels = "[...document.querySelectorAll('.language')].map((e) => e.innerText)"
        assert await reader.get(labels) == ["python", "mermaid", "text"]
        assert await reader.count("pre[data-lang=python] .hljs-keyword") >= 4
        assert await reader.count("pre .hljs-comment") == 1
        odd = "[class]:not([class^='hljs-'])"
        assert await reader.count(f"pre {odd}") == 0
        assert await reader.count("pre[tabindex='0'][aria-label^='Code']") == 3
        await reader.get("navigator.clipboard.writeText = async (text) => { window.copied = text }")
        await reader.page.click(".copy-code")
        await reader.page.until("document.querySelector('.copy-code').firstChild.data === 'Copied'")
        assert (await reader.get("window.copied")).startswith("def fib(n: int) -> int:\n    ")
        await reader.page.until("document.querySelector('.copy-code').firstChild.data === 'Copy'")


async def test_a_growing_block_is_highlighted(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "for number in range(10): print(number)\n"
    async with reading(browser, monkeypatch, f"```python\n{line * 200}```\n") as reader:
        await reader.ask(pace=40)
        await reader.page.until("document.querySelectorAll('pre .hljs-keyword').length > 8")
        assert await reader.get(f"{CARET}.parentElement.tagName") == "CODE"
        await reader.stop()
        text = await reader.get("document.querySelector('pre').textContent")
        assert (line * 200).startswith(text)


async def test_tables_scroll_and_break_no_word(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(browser, monkeypatch, size=(390, 740)) as reader:
        await reader.ask_all()
        table = "document.querySelector('.table')"
        assert await reader.get(f"{table}.scrollWidth > {table}.clientWidth + 100")
        assert await reader.get(f"{table}.tabIndex") == 0
        # A word that is broken has rectangles in two lines.
        broken = """[...document.querySelectorAll('.table :is(th, td)')].flatMap((cell) => {
            const node = cell.firstChild;
            return [...node.data.matchAll(/[^\\s]+/g)].filter((word) => {
                const range = document.createRange();
                range.setStart(node, word.index);
                range.setEnd(node, word.index + word[0].length);
                return range.getClientRects().length > 1;
            }).map((word) => word[0]);
        })"""
        assert await reader.get(broken) == []
        assert await reader.get("document.scrollingElement.scrollWidth") == 390


@pytest.mark.parametrize(
    ("text", "parent"),
    [
        ("word " * 500, "P"),
        ("- item\n  - inner " + "word " * 500, "LI"),
        ("```\n" + "one line\n" * 300, "CODE"),
        ("| a | b |\n| - | - |\n" + "| one | two |\n" * 300, "TD"),
        ("> quoted " + "word " * 500, "P"),
    ],
    ids=["text", "list", "code", "table", "quote"],
)
async def test_the_caret_stands_behind_the_last_word(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch, text: str, parent: str
) -> None:
    async with reading(browser, monkeypatch, text) as reader:
        await reader.ask(pace=40)
        await reader.page.until(f"{LAST}?.innerText.length > 60 && {CARET}")
        assert await reader.get(f"{CARET}.parentElement.tagName") == parent
        assert await reader.count(".caret") == 1
        # In the line of the last word, not below it.
        lines = await reader.get(
            f"""(() => {{
                const caret = {CARET};
                const range = document.createRange();
                range.setStart({LAST}, 0);
                range.setEndBefore(caret);
                const above = [...range.getClientRects()].filter((r) => r.width > 0).at(-1);
                const own = caret.getBoundingClientRect();
                return own.top < above.bottom && own.bottom > above.top;
            }})()"""
        )
        assert lines
        await reader.stop()
        assert await reader.count(".caret") == 0


async def test_a_selection_in_the_growing_paragraph_stays(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(
        browser, monkeypatch, "Select **these words** here " + "and " * 500
    ) as reader:
        await reader.ask(pace=40)
        await reader.page.until(f"{LAST}?.innerText.length > 40")
        await reader.get(
            f"""(() => {{
                const block = {LAST}.querySelector("p");
                getSelection().setBaseAndExtent(
                    block.firstChild, 2, block.querySelector("strong").firstChild, 5);
            }})()"""
        )
        length = await reader.get(f"{LAST}.innerText.length")
        await reader.page.until(f"{LAST}.innerText.length > {length} + 40")
        assert await reader.get("getSelection().toString()") == "lect these"
        await reader.stop()


async def test_notes_details_tasks_links(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = " [a](//evil.example) [b](/admin) [c](javascript:alert(1)) [d](data:text/html,x)"
    async with reading(browser, monkeypatch, RICH + "\n" + links) as reader:
        await reader.ask_all()
        await reader.page.click(".answer sup a")
        await reader.page.until("document.activeElement.dataset.note === '1'")
        # It stays open if it was drawn while it grew.
        is_open = "document.querySelector('.answer details').open"
        before = await reader.get(is_open)
        await reader.page.click(".answer summary")
        await reader.page.until(f"{is_open} !== {json.dumps(before)}")
        tasks = "[...document.querySelectorAll('li[data-task]')].map((e) => e.textContent.trim())"
        assert await reader.get(tasks) == ["Done: done", "To do: to do"]
        hrefs = "[...document.querySelectorAll('.answer a[href^=http]')].map((e) => e.innerText)"
        assert await reader.get(hrefs) == ["link", "Image: a picture"]
        assert await reader.count(".answer a:not([href])") == 4
        assert (
            await reader.count(".answer a[target=_blank][rel='noopener noreferrer nofollow']") == 2
        )


async def test_an_open_part_stays_open_while_it_grows(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "<details><summary>Long</summary>\n\n" + "word " * 500
    async with reading(browser, monkeypatch, text) as reader:
        await reader.ask(pace=40)
        await reader.page.until(
            "document.querySelector('.answer details p')?.innerText.length > 20"
        )
        assert await reader.get("document.querySelector('.answer details').open")
        await reader.page.click(".answer summary")
        length = await reader.get("document.querySelector('.answer details').textContent.length")
        await reader.page.until(
            f"document.querySelector('.answer details').textContent.length > {length} + 20"
        )
        assert not await reader.get("document.querySelector('.answer details').open")
        await reader.stop()


async def test_headings_have_a_hierarchy(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n\n".join(f"{'#' * depth} Heading {depth}\n\nText." for depth in range(1, 5))
    async with reading(browser, monkeypatch, text) as reader:
        await reader.ask_all()
        sizes = await reader.get(
            "[...document.querySelectorAll('.answer [data-depth]')]"
            ".map((e) => parseFloat(getComputedStyle(e).fontSize))"
        )
        assert sizes == sorted(set(sizes), reverse=True)
        assert len(sizes) == 4
        gaps = await reader.get(
            """[...document.querySelectorAll('.answer [data-depth]')].slice(1).map((e) => {
                const block = e.closest('.block');
                const top = block.getBoundingClientRect().top;
                const before = block.previousElementSibling.getBoundingClientRect().bottom;
                const after = block.nextElementSibling.getBoundingClientRect().top;
                return top - before > after - block.getBoundingClientRect().bottom;
            })"""
        )
        assert gaps == [True, True, True]
        tags = (
            "[...document.querySelectorAll('.turn :is(h2, h3, h4, h5, h6)')].map((e) => e.tagName)"
        )
        assert await reader.get(tags) == ["H2", "H3", "H4", "H5", "H6"]
