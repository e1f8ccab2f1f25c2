"""The files of the web pages, as they were when the process began.

They are served under an address that has a hash of all of them, ``/static/HASH/js/main.js``. A
browser may keep what it got from there for ever, and never mixes modules of two versions: their
imports are relative, so all of them have the same hash.

Nothing is built. A page gets links in its head, so that a browser on a slow network does not learn
of one module from another: all of them are asked for at once, and the style sheets are joined. A
page's script may import a second part later (``import()``). What only that one needs is named
behind the rest, so that it comes after it, and without a pause.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

PREFIX = "/static/"
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".woff2": "font/woff2"}
_PACKED = ("text/", "application/json", "application/manifest+json", "image/svg+xml")
_LEAST_PACKED = 200  # bytes; a smaller file gains nothing
_IMPORT = re.compile(
    r"""(?:^|[;}\n])\s*(?:(?:import|export)\b[^;"'()]*?\bfrom|import)\s*["'](\.[^"']+)["']"""
)
_LATER = re.compile(r"""\bimport\(["'](\.[^"']+)["']\)""")
_STYLE = re.compile(r'[ \t]*<link rel="stylesheet" href="/static/([^"]+)" />\n')
_SCRIPT = re.compile(r'[ \t]*<script type="module" src="/static/([^"]+)"></script>\n')
_FONT = re.compile(r"""url\(["']?([^"')]+\.woff2)["']?\)""")


@dataclass(frozen=True, slots=True)
class File:
    """One file: its bytes, the same packed with gzip (None: it does not pay), and its type."""

    body: bytes
    media: str
    packed: bytes | None = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        packed = None
        if self.media.startswith(_PACKED) and len(self.body) >= _LEAST_PACKED:
            packed = gzip.compress(self.body, mtime=0)
        object.__setattr__(self, "packed", packed)
        object.__setattr__(self, "digest", hashlib.sha256(self.body).hexdigest()[:16])


class Site:
    """All files below a folder.

    :raises OSError: a file cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self._files: dict[str, File] = {}
        hashed = hashlib.sha256()
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            name = path.relative_to(root).as_posix()
            body = path.read_bytes()
            hashed.update(f"{name}\0{len(body)}\0".encode())
            hashed.update(body)
            self._files[name] = File(body, _media(name))
        self.version = hashed.hexdigest()[:16]
        self._pages = {
            name: self._page(name) for name in list(self._files) if name.endswith(".html")
        }

    def file(self, name: str) -> File | None:
        """A file by its path below the root, or by a style sheet's joined name."""
        return self._files.get(name)

    def page(self, name: str) -> File:
        """A page, with the addresses of this version. :raises KeyError: there is none."""
        return self._pages[name]

    def modules(self, name: str) -> list[str]:
        """The module ``name`` and all that it imports statically, each once, nearest first."""
        found = [name]
        for module in found:
            source = self._files[module].body.decode()
            targets = (_joined(module, target) for target in _IMPORT.findall(source))
            found += dict.fromkeys(target for target in targets if target not in found)
        return found

    def later(self, name: str) -> list[str]:
        """What the module ``name`` itself imports later: one part after the other."""
        known = self.modules(name)
        first = len(known)
        for target in _LATER.findall(self._files[name].body.decode()):
            part = self.modules(_joined(name, target))
            known += [module for module in part if module not in known]
        return known[first:]

    def _page(self, name: str) -> File:
        html = self._files[name].body.decode()
        links = []
        styles = _STYLE.findall(html)
        if styles:
            joined = f"css/{PurePosixPath(name).stem}.all.css"
            body = b"\n".join(self._files[style].body for style in styles)
            self._files[joined] = File(body, "text/css")
            html = _STYLE.sub("", html)
            links.append(f'<link rel="stylesheet" href="{PREFIX}{joined}" />')
        scripts = _SCRIPT.findall(html)
        links += [_preload(module) for script in scripts for module in self.modules(script)]
        links += [
            f'<link rel="preload" as="font" type="font/woff2" href="{PREFIX}{font}" crossorigin />'
            for style in styles
            for font in self._fonts(style)
        ]
        links += [_preload(module) for script in scripts for module in self.later(script)]
        head = "".join(f"    {link}\n" for link in links)
        html = _SCRIPT.sub(lambda match: head + match.group(), html, count=1)
        html = html.replace(f'"{PREFIX}', f'"{PREFIX}{self.version}/')
        return File(html.encode(), "text/html")

    def _fonts(self, style: str) -> list[str]:
        return [_joined(style, font) for font in _FONT.findall(self._files[style].body.decode())]


def _preload(module: str) -> str:
    return f'<link rel="modulepreload" href="{PREFIX}{module}" />'


def _media(name: str) -> str:
    known = _TYPES.get(PurePosixPath(name).suffix)
    return known or mimetypes.guess_type(name)[0] or "application/octet-stream"


def _joined(name: str, relative: str) -> str:
    """The path that ``relative`` means in the file ``name``."""
    parts = list(PurePosixPath(name).parent.parts)
    for part in PurePosixPath(relative).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
