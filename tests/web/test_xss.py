"""What a model writes is never run, wherever it stands and however it is cut into pieces.

200 answers in one: twenty payloads in ten places each. Every change of the page is looked at while
the answer streams, not only its end.
"""

from __future__ import annotations

import pytest
from chromium import Chromium

from tests.support.programs import CHROMIUM, needs
from tests.web import scripted_server
from tests.web.answers import LAST, reading
from tests.web.browsing import DONE

pytestmark = [needs(CHROMIUM), pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]

PAYLOADS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)><script>alert(1)</script></svg>",
    '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    "<math><mtext><table><mglyph><style><!--</style><img src onerror=alert(1)>",
    "<a href=javascript:alert(1) onclick=alert(1)>x</a>",
    "<details open ontoggle=alert(1)><summary onclick=alert(1)>x</summary>",
    '<style>@import "http://evil.example/a.css"; * { color: red }</style>',
    "<form action=http://evil.example><button formaction=javascript:alert(1)>x</button></form>",
    "<video><source onerror=alert(1)></video><audio src=x onerror=alert(1)>",
    "<base href=http://evil.example/><link rel=stylesheet href=http://evil.example/b.css>",
    "<div id=app name=app class=caret style=position:fixed onpointerover=alert(1)>x</div>",
    r"\href{javascript:alert(1)}{x} \url{javascript:alert(1)}",
    r"\htmlData{a=b}{x}\htmlClass{caret}{x}\htmlStyle{color:red}{x}\htmlId{app}{x}",
    r"\includegraphics[height=1em]{http://evil.example/c.png}",
    r"\text{</annotation></semantics></math><img src=x onerror=alert(1)>}",
    r"\def\a{\a\a}\a",
    "&lt;img src=x onerror=alert(1)&gt;&#x3C;script&#x3E;alert(1)&#x3C;/script&#x3E;",
    '"><img src=x onerror=alert(1)><x y="',
    "--><!--<img src=x onerror=alert(1)>-->]]></script><script>alert(1)</script>",
)
PLACES = (
    "{0}",
    "A line with {0} in it and **{0}** again.",
    "```python\nx = 1  # {0}\n```",
    "```{0}\nx\n```",
    "Code `{0}` in a line.",
    "So $x {0} y$ and \\({0}\\).",
    "$$\n{0}\n$$",
    "| {0} | b |\n| --- | --- |\n| c | {0} |",
    "[{0}](javascript:alert(1)) ![{0}](http://evil.example/{0}) [t](http://a.example '{0}')",
    "A note[^n].\n\n[^n]: {0}\n\n<details><summary>{0}</summary>\n\n{0}\n\n</details>",
)
ANSWERS = tuple(place.format(payload) for payload in PAYLOADS for place in PLACES)

# Functions that a payload calls, and a look at every node and attribute as it comes.
WATCH = """
window.ran = [];
for (const name of ["alert", "confirm", "prompt", "print"]) {
  window[name] = () => window.ran.push(name);
}
window.bad = [];
const TAGS = new Set(("A BLOCKQUOTE BR BUTTON CODE DEL DETAILS DIV EM H3 H4 H5 H6 HR KBD LI OL P " +
  "PRE SPAN STRONG SUB SUMMARY SUP TABLE TBODY TD TH THEAD TR UL").split(" "));
const OWN = "block|caret|code|code-head|copy-code|language|note-label|part|short|table|" +
  "visually-hidden";
const CLASSES = new RegExp(`^(${OWN}|hljs-[a-z_-]+)$`);
const ADDRESS = /^(https?:\\/\\/|mailto:|tel:|#note-[\\w-]+$)/;
function look(element) {
  const isMath = element.namespaceURI === "http://www.w3.org/1998/Math/MathML";
  const name = element.nodeName;
  if (!isMath && !TAGS.has(name)) window.bad.push(`<${name}>`);
  if (isMath && /annotation|semantics|mglyph|malignmark/i.test(name)) window.bad.push(`<${name}>`);
  for (const { name: attribute, value } of element.attributes) {
    const said = `${name}.${attribute}=${value}`;
    if (/^(on|src|action|form|xlink|style$|name$)/i.test(attribute)) window.bad.push(said);
    if (attribute === "id" && !/^note-[\\w-]+$/.test(value)) window.bad.push(said);
    if (attribute === "class" && !value.split(" ").every((one) => CLASSES.test(one))) {
      window.bad.push(said);
    }
    if (/href/i.test(attribute) && !ADDRESS.test(value)) window.bad.push(said);
  }
}
new MutationObserver((changes) => {
  for (const { target, addedNodes } of changes) {
    const answer = (target.closest ?? (() => null)).call(target, ".answer");
    if (!answer) continue;
    for (const node of [target, ...addedNodes]) {
      if (node.nodeType !== 1 || node === answer) continue;
      look(node);
      node.querySelectorAll("*").forEach(look);
    }
  }
}).observe(document, { subtree: true, childList: true, attributes: true });
"""
OUTSIDE = (
    "performance.getEntriesByType('resource').map((entry) => entry.name)"
    ".filter((name) => !name.startsWith(location.origin))"
)


def cut(text: str, size: int) -> list[str]:
    """Pieces that end in the middle of tags and commands."""
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("size", [3, 17])
async def test_nothing_runs(browser: Chromium, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    assert len(set(ANSWERS)) == 200
    monkeypatch.setattr(scripted_server, "pieces", lambda text: cut(text, size))
    async with reading(browser, monkeypatch, "\n\n".join(ANSWERS), script=WATCH) as reader:
        await reader.ask()
        await reader.page.until(DONE, timeout_s=120)
        await reader.page.until(
            f"{LAST}.querySelector('math') && {LAST}.querySelector('.hljs-comment')"
        )
        assert await reader.get("window.ran") == []
        assert await reader.get("[...new Set(window.bad)]") == []
        assert await reader.get(OUTSIDE) == []
        assert await reader.get("document.querySelectorAll('.app').length") == 1
        # It was all shown: the payloads are there, as text.
        text = await reader.get(f"{LAST}.textContent")
        assert text.count("<img src=x onerror=alert(1)>") > 50
        assert reader.page.complaints == []


async def test_the_watch_sees_what_must_not_be(
    browser: Chromium, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reading(browser, monkeypatch, "Words.", script=WATCH) as reader:
        await reader.ask_all()
        await reader.get(
            f"{LAST}.firstChild.insertAdjacentHTML('beforeend', "
            "'<img id=app name=x><p onclick=x style=x class=x></p>')"
        )
        await reader.page.until("window.bad.length > 0")
        found = set(await reader.get("window.bad"))
        assert found == {
            "<IMG>", "IMG.id=app", "IMG.name=x", "P.onclick=x", "P.style=x", "P.class=x",
        }  # fmt: skip
