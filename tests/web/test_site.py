"""The addresses of the pages' files, what a browser keeps of them, and what it asks for at once."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from vendor_web import VENDOR, imported

from gateway.api.pages.routes import add_pages, site
from gateway.api.pages.site import Site

WEB = VENDOR.parent
# What is needed before one can write. With 400 ms to and fro, the handshake and the page take
# 0.8 s. Until 2.4 s its connection brings four files more. A browser opens five others, which shake
# hands first, and bring three each.
MOST_FILES = 4 + 5 * 3

Client = TestClient[web.Request, web.Application]


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    app = web.Application()
    add_pages(app)
    async with TestClient(TestServer(app), auto_decompress=False) as opened:
        yield opened


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


SMALL = {
    "index.html": '<html>\n    <link rel="stylesheet" href="/static/css/a.css" />\n'
    '    <link rel="stylesheet" href="/static/css/b.css" />\n'
    '    <script type="module" src="/static/js/main.js"></script>\n</html>\n',
    "css/a.css": 'a { src: url("../f.woff2"); }',
    "css/b.css": "b { color: red; }",
    "f.woff2": "font",
    "js/main.js": 'import { a } from "./a.js";\nimport b from "../v/b.js";\n'
    'import("./late.js");\nimport("./later.js");\n',
    "js/a.js": 'export { c } from "./deep/c.js";\nimport b from "../v/b.js";\n',
    "js/deep/c.js": 'import { a } from "../a.js";\nexport const c = 1;\n',
    "js/late.js": 'import "./a.js";\nexport const late = 1;\n',
    "js/later.js": 'import "./late.js";\n',
    "js/alone.js": "export const alone = 1;\n",
    "v/b.js": 'export default ["from","./no.js"];\n',
}


def test_a_page_names_all_that_it_needs_at_once(tmp_path: Path) -> None:
    found = Site(write(tmp_path, SMALL))
    html = found.page("index.html").body.decode()
    at = f"/static/{found.version}/"
    needed = ("js/main.js", "js/a.js", "v/b.js", "js/deep/c.js")
    later = ("js/late.js", "js/later.js")
    assert re.findall(r'rel="modulepreload" href="([^"]+)"', html) == [
        at + name for name in needed + later
    ]
    font = html.index("f.woff2")  # the text is there before its font, and before what comes later
    assert html.index("c.js") < font < html.index("late.js")
    assert re.findall(r'rel="stylesheet" href="([^"]+)"', html) == [f"{at}css/index.all.css"]
    assert f'as="font" type="font/woff2" href="{at}f.woff2" crossorigin' in html
    assert f'<script type="module" src="{at}js/main.js">' in html
    styles = found.file("css/index.all.css")
    assert styles is not None
    assert styles.body.decode() == f"{SMALL['css/a.css']}\n{SMALL['css/b.css']}"


@pytest.mark.parametrize("change", ["content", "name", "less"])
def test_every_change_changes_all_addresses(tmp_path: Path, change: str) -> None:
    before = Site(write(tmp_path, SMALL)).version
    assert Site(tmp_path).version == before
    alone = tmp_path / "js" / "alone.js"
    match change:
        case "content":
            alone.write_text("export const alone = 2;\n", encoding="utf-8")
        case "name":
            alone.rename(alone.with_name("single.js"))
        case _:
            alone.unlink()
    assert Site(tmp_path).version != before


async def test_what_has_the_hash_in_its_address_is_kept_for_ever(client: Client) -> None:
    page = await client.get("/")
    assert page.status == 200
    assert page.content_type == "text/html"
    assert page.headers["Cache-Control"] == "no-cache"
    addresses = re.findall(r'(?:href|src)="(/static/[^"]+)"', gunzipped(await page.read()))
    assert len(addresses) > 20
    for address in addresses:
        answer = await client.get(address)
        assert answer.status == 200, address
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        packed = answer.headers.get("Content-Encoding") == "gzip"
        small = int(answer.headers["Content-Length"]) < 300
        assert packed or small or address.endswith(".woff2"), address
        types = {
            "js": "text/javascript",
            "css": "text/css",
            "svg": "image/svg+xml",
            "webmanifest": "application/manifest+json",
            "woff2": "font/woff2",
        }
        assert answer.content_type == types[address.rpartition(".")[2]]


def gunzipped(body: bytes) -> str:
    return gzip.decompress(body).decode()


async def test_another_hash_has_nothing(client: Client) -> None:
    """A page of an older version gets no module of a newer one."""
    for version in ("0" * 16, site().version[:-1], "none"):
        assert (await client.get(f"/static/{version}/js/main.js")).status == 404


async def test_without_the_hash_a_browser_asks_each_time(client: Client) -> None:
    first = await client.get("/static/js/main.js")
    assert first.headers["Cache-Control"] == "no-cache"
    assert first.headers["Vary"] == "Accept-Encoding"
    assert gunzipped(await first.read()) == (WEB / "js" / "main.js").read_text(encoding="utf-8")
    headers = {"If-None-Match": first.headers["ETag"]}
    again = await client.get("/static/js/main.js", headers=headers)
    assert again.status == 304
    assert await again.read() == b""
    other = await client.get("/static/js/main.js", headers={"If-None-Match": 'W/"other"'})
    assert other.status == 200


async def test_a_client_that_cannot_unpack_gets_the_file_as_it_is(client: Client) -> None:
    address = client.make_url("/static/js/main.js")
    async with (
        aiohttp.ClientSession(skip_auto_headers=["Accept-Encoding"]) as session,
        session.get(address) as answer,
    ):
        assert "Content-Encoding" not in answer.headers
        assert await answer.text() == (WEB / "js" / "main.js").read_text(encoding="utf-8")


async def test_a_head_request_has_no_body(client: Client) -> None:
    answer = await client.head("/static/js/main.js")
    assert answer.status == 200
    assert int(answer.headers["Content-Length"]) > 0
    assert await answer.read() == b""


def test_the_modules_found_are_those_that_the_page_imports() -> None:
    names = site().modules("js/main.js")
    for name in names:
        for target in imported((WEB / name).read_text(encoding="utf-8")):
            path = ((WEB / name).parent / target).resolve().relative_to(WEB.resolve())
            assert path.as_posix() in names


def test_the_first_load_takes_few_rounds() -> None:
    files = len(site().modules("js/main.js")) + 1  # and the style sheet
    assert files <= MOST_FILES


def test_what_a_page_loads_later_is_named_in_the_order_of_its_use() -> None:
    later = site().later("js/main.js")
    assert later[0] == "js/page.js"
    engine = {*site().modules("js/page.js")}
    views = later.index("js/parts.js")
    assert {*later[:views]} <= engine
    assert not engine & {*later[views:]}
