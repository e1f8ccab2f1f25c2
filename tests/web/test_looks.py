"""The page on every screen: widths, heights, zoom, paper, no script, contrast, fingers."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from chromium import Chromium, Page

from tests.support.programs import CHROMIUM, needs
from tests.web.answers import LAST, Reader, reading
from tests.web.browsing import ANSWER

pytestmark = [needs(CHROMIUM), pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]

MAIN = "document.querySelector('main')"
TEXT = 4.5  # WCAG 1.4.3
EDGE = 3.0  # WCAG 1.4.11
# What is seen on what, and the least contrast.
PAIRS = [
    *((ink, on, TEXT) for ink in ("ink", "muted") for on in ("paper", "raised", "sunken", "code")),
    *((ink, on, TEXT) for ink in ("accent", "warn", "bad", "good", "think")
      for on in ("paper", "raised")),
    *((f"code-{name}", "code", TEXT) for name in ("ink", "word", "name", "text", "number", "note")),
    ("accent-ink", "accent", TEXT),
    *(("edge", on, EDGE) for on in ("paper", "raised", "code")),
    ("accent", "edge", 1.0),
]  # fmt: skip


async def inside(reader: Reader, selector: str) -> bool:
    """Whether all that matches can be seen whole, without scrolling sideways."""
    found: bool = await reader.get(
        f"""[...document.querySelectorAll({selector!r})]
            .filter((element) => element.checkVisibility()).every((element) => {{
            const box = element.getBoundingClientRect();
            return box.width > 0 && box.left >= 0 && box.right <= innerWidth &&
                box.top >= 0 && box.bottom <= innerHeight;
        }})"""
    )
    return found


@pytest.mark.parametrize("width", [320, 360, 390, 768, 1440])
async def test_nothing_is_outside(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    async with reading(browser, monkeypatch, size=(width, 700)) as reader:
        assert await inside(reader, ".composer :is(textarea, button), header :is(h1, button)")
        await reader.ask("hold on, with a long wordwordwordwordwordwordwordwordwordwordwordword")
        await reader.page.until(f"{ANSWER}.length > 30")
        assert await reader.count("[aria-label=Stop]") == 1
        assert await inside(reader, "[aria-label=Stop], [aria-label='Pause reading']")
        await reader.stop()
        await reader.ask_all()
        wide = f"""[...document.querySelectorAll('.app *')]
            .filter((e) => e.getBoundingClientRect().right > {width} + 1)
            .filter((e) => !e.closest('pre, .table, .visually-hidden, [data-math]'))
            .map((e) => e.className || e.tagName)"""
        assert await reader.get(wide) == []
        assert await reader.get("document.scrollingElement.scrollWidth") <= width
        assert await reader.get("document.scrollingElement.scrollHeight") <= 700


async def test_a_phone_on_its_side_has_room_for_the_text(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(browser, monkeypatch, size=(844, 390)) as reader:
        await reader.ask("hold on")
        await reader.page.until(f"{ANSWER}.length > 30")
        assert await reader.get(f"{MAIN}.clientHeight") > 390 * 0.65
        assert await inside(reader, "[aria-label=Stop]")
        await reader.stop()


async def test_at_400_percent_all_of_the_height_is_for_the_text(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1280 by 900 at 400 %: what follows the newest text goes on working."""
    async with reading(browser, monkeypatch, size=(320, 225)) as reader:
        await reader.ask("hold on", pace=40)
        await reader.page.until(f"{ANSWER}.length > 400")
        app = "document.querySelector('.app')"
        assert await reader.get(f"{MAIN}.getBoundingClientRect().height > 225")
        gap = f"{app}.scrollHeight - {app}.clientHeight - {app}.scrollTop"
        await reader.page.until(f"{app}.scrollTop > 100 && {gap} <= 1")
        await reader.get(f"{app}.scrollTop -= 150")
        await reader.page.until("document.querySelector('.jump')")
        top = await reader.get(f"{app}.scrollTop")
        length = await reader.get(f"{ANSWER}.length")
        await reader.page.until(f"{ANSWER}.length > {length} + 60")
        assert await reader.get(f"{app}.scrollTop") == top
        await reader.stop()
        assert await reader.get("document.scrollingElement.scrollWidth") == 320


async def pages_on_paper(page: Page) -> int:
    pdf = base64.b64decode((await page.command("Page.printToPDF"))["data"])
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf))


async def test_paper_has_the_whole_conversation(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(browser, monkeypatch) as reader:
        await reader.page.prefer("dark")
        await reader.ask_all()
        one = await pages_on_paper(reader.page)
        for _ in range(3):
            await reader.ask_all()
        assert await pages_on_paper(reader.page) >= one + 3
        media: dict[str, Any] = {"media": "print", "features": []}
        await reader.page.command("Emulation.setEmulatedMedia", **media)
        visible = "(s) => document.querySelector(s).checkVisibility()"
        for hidden in (".composer", ".actions", ".copy-code"):
            assert not await reader.get(f"({visible})('{hidden}')"), hidden
        ground = "getComputedStyle(document.body).backgroundColor"
        assert await reader.get(ground) == "rgb(255, 255, 255)"


async def test_without_scripts_the_page_says_so(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(browser, monkeypatch, size=(390, 700)) as reader:
        await reader.page.command("Emulation.setScriptExecutionDisabled", value=True)
        await reader.page.reload()
        await reader.page.command("DOM.enable")
        root = (await reader.page.command("DOM.getDocument"))["root"]["nodeId"]
        node = await reader.page.command("DOM.querySelector", nodeId=root, selector="noscript")
        box = await reader.page.command("DOM.getBoxModel", nodeId=node["nodeId"])
        top, bottom = box["model"]["border"][1], box["model"]["border"][5]
        assert 0 <= top < bottom <= 700


async def test_every_colour_can_be_seen(browser: Chromium, monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(browser, monkeypatch) as reader:
        for theme in ("light", "dark"):
            await reader.get(f"document.documentElement.dataset.theme = '{theme}'")
            for ink, on, least in PAIRS:
                contrast = await reader.get(
                    f"""(() => {{
                        const probe = document.body.appendChild(document.createElement("i"));
                        const light = (name) => {{
                            probe.style.color = `var(--${{name}})`;
                            const [r, g, b] = getComputedStyle(probe).color
                                .match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
                                .map((c) =>
                                    c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
                            return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
                        }};
                        const [a, b] = [light("{ink}"), light("{on}")].sort((x, y) => y - x);
                        probe.remove();
                        return a / b;
                    }})()"""
                )
                assert contrast >= least, f"{theme}: {ink} on {on} has {contrast:.2f}"


async def test_the_theme_follows_the_system_unless_the_page_says_otherwise(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    async with reading(browser, monkeypatch) as reader:
        grounds = {}
        for scheme in ("light", "dark"):
            await reader.page.prefer(scheme)
            grounds[scheme] = await reader.get(ground)
        assert grounds["light"] != grounds["dark"]
        for theme in ("light", "dark"):
            await reader.get(f"document.documentElement.dataset.theme = '{theme}'")
            assert await reader.get(ground) == grounds[theme]


async def test_in_forced_colours_the_switch_is_there(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(browser, monkeypatch) as reader:
        features = [{"name": "forced-colors", "value": "active"}]
        await reader.page.command("Emulation.setEmulatedMedia", features=features)
        style = "getComputedStyle(document.querySelector('.switch input'))"
        for _ in range(2):
            ground, edge = await reader.get(f"[{style}.backgroundColor, {style}.borderTopColor]")
            assert ground != edge
            thumb = "getComputedStyle(document.querySelector('.switch input'), '::after')"
            assert await reader.get(f"{thumb}.backgroundColor") != ground
            await reader.page.click(".switch input")
            await reader.page.until(f"{style}.backgroundColor !== '{ground}'")


async def test_right_to_left(browser: Chromium, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = "مرحبا، كيف حالك؟\n\n- نعم\n\n```\ncode\n```\n\nAnd English."
    async with reading(browser, monkeypatch, answer) as reader:
        await reader.ask_all("مرحبا، كيف حالك؟")
        direction = "(e) => getComputedStyle(e).direction"
        assert await reader.get(f"({direction})(document.querySelector('.question p'))") == "rtl"
        blocks = "document.querySelectorAll('.answer .block > *')"
        assert await reader.get(f"[...{blocks}].map({direction})") == ["rtl", "rtl", "ltr", "ltr"]


async def test_fingers_hit_what_they_aim_at(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(browser, monkeypatch, size=(390, 844)) as reader:
        await reader.page.command("Emulation.setTouchEmulationEnabled", enabled=True)
        small = """[...document.querySelectorAll('button, input, summary, textarea, select')]
            .map((e) => [e, (e.closest('label') ?? e).getBoundingClientRect()])
            .filter(([, box]) => box.width > 0 && (box.width < 44 || box.height < 44))
            .filter(([e]) => !e.matches('textarea'))
            .map(([e, box]) => `${e.className || e.type} ${box.width}x${box.height}`)"""
        assert await reader.get(small) == []
        await reader.ask_all()
        assert await reader.get(small) == []


async def test_every_button_has_a_name(browser: Chromium, monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(browser, monkeypatch, size=(320, 700)) as reader:
        await reader.ask_all()
        await reader.page.command("Accessibility.enable")
        nodes = (await reader.page.command("Accessibility.getFullAXTree"))["nodes"]
        buttons = [node for node in nodes if node.get("role", {}).get("value") == "button"]
        assert len(buttons) > 6
        assert [node for node in buttons if not node["name"]["value"].strip()] == []


async def test_each_turn_has_a_heading(browser: Chromium, monkeypatch: pytest.MonkeyPatch) -> None:
    async with reading(browser, monkeypatch, "An answer.") as reader:
        await reader.ask_all("What is it?")
        await reader.ask_all("x" * 200)
        names = "[...document.querySelectorAll('.turn > h2')].map((e) => e.textContent)"
        assert await reader.get(names) == ["Question: What is it?", f"Question: {'x' * 80}…"]


async def test_before_the_first_question_words_and_composer_stand_together(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(browser, monkeypatch, "An answer.", size=(1440, 900)) as reader:
        place = "document.querySelector('.composer').getBoundingClientRect()"
        words = "document.querySelector('.welcome').getBoundingClientRect()"
        assert 0 < await reader.get(f"{place}.top - {words}.bottom") < 80
        middle = await reader.get(f"({words}.top + {place}.bottom) / 2")
        assert 900 * 0.35 < middle < 900 * 0.6
        await reader.ask_all()
        assert await reader.get(f"innerHeight - {place}.bottom") < 30


async def test_thoughts_unfold_and_fold_at_the_boundary(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(browser, monkeypatch, "word " * 300) as reader:
        reader.server.step_s = 0.3
        folding = (
            "window.folding = []; new MutationObserver((all) => { for (const { target } of all) "
        )
        folding += "if (target.matches('.thoughts[hidden]')) window.folding.push("
        folding += "target.getAnimations().length, target.textContent.length); }).observe("
        folding += "document, { subtree: true, attributes: true, attributeFilter: ['hidden'] })"
        await reader.get(folding)
        await reader.ask(pace=20)
        await reader.page.until(
            r"/^\d+ s/.test(document.querySelector('.thinking-clock')?.innerText)"
        )
        await reader.page.until(f"{LAST}?.innerText.length > 10")
        motions, length = await reader.get("window.folding")
        assert motions >= 1
        assert length > 100
        assert await reader.get("document.querySelector('.thoughts').hidden")
        assert await reader.count(".thinking-clock") == 0
        await reader.page.prefer("light", "reduce")
        await reader.get("window.folding.length = 0")
        for hidden in ("false", "true"):
            await reader.get("document.querySelector('.thinking-button').click()")
            await reader.page.until(f"document.querySelector('.thoughts').hidden === {hidden}")
        await reader.page.until("window.folding.length === 2")
        assert (await reader.get("window.folding"))[0] == 0
        await reader.stop()


async def test_the_font_is_the_pages_own(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(browser, monkeypatch) as reader:
        await reader.page.until("document.fonts.check('16px Inter')")
        faces = "[...document.fonts].map((face) => `${face.family} ${face.status}`)"
        assert [face.replace('"', "") for face in await reader.get(faces)] == ["Inter loaded"]
        assert reader.page.complaints == []
