"""Routes to the web pages and their files (`gateway.api.pages.site`)."""

from __future__ import annotations

from functools import cache

from aiohttp import hdrs, web

from gateway.api.pages.site import PREFIX, File, Site
from gateway.config import PROJECT_ROOT

_ROOT = PROJECT_ROOT / "web"
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_FIRST = "no-cache"  # keep it, and ask whether it is still the same


@cache
def site() -> Site:
    """The files as they were at the first call. :raises OSError: they cannot be read."""
    return Site(_ROOT)


def add_pages(app: web.Application) -> None:
    """Add the chat page and its files. :raises OSError: they cannot be read."""
    site()
    app.add_routes([web.get("/", _chat), web.get(f"{PREFIX}{{path:.+}}", _file)])


async def _chat(request: web.Request) -> web.Response:
    return _answer(request, site().page("index.html"), _ASK_FIRST)


async def _file(request: web.Request) -> web.Response:
    path = request.match_info["path"]
    version, _, name = path.partition("/")
    current = version == site().version
    found = site().file(name if current else path)
    if found is None:  # aiohttp's own route would answer in a form that no client knows
        raise web.HTTPNotFound
    return _answer(request, found, _FOR_EVER if current else _ASK_FIRST)


def _answer(request: web.Request, file: File, caching: str) -> web.Response:
    packed = file.packed if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "") else None
    tag = f'W/"{file.digest}"'  # weak: the same for the packed bytes
    headers = {hdrs.CACHE_CONTROL: caching, hdrs.ETAG: tag, hdrs.VARY: hdrs.ACCEPT_ENCODING}
    if tag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
        return web.Response(status=304, headers=headers)
    if packed is not None:
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    text = file.media.startswith("text/")
    return web.Response(
        body=file.body if packed is None else packed,
        content_type=file.media,
        charset="utf-8" if text else None,
        headers=headers,
    )
