"""Every link to a file or a heading of the project has a target."""

from __future__ import annotations

import posixpath

from tests.docs.support.pages import ROOT, anchors, links, pages


def test_every_relative_link_and_anchor_resolves() -> None:
    checked = 0
    broken = []
    for link in links():
        if link.text.startswith(("http:", "https:", "mailto:")):
            continue
        checked += 1
        path, _, anchor = link.text.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(link.page), path))
        if not path:
            target = link.page
        if not (ROOT / target).exists():
            broken.append(f"{link} (there is no {target})")
        elif anchor and anchor not in anchors(target):
            broken.append(f"{link} (no such heading in {target})")
    assert checked > 20
    assert not broken, "\n".join(broken)


def test_the_index_has_every_page() -> None:
    index = "docs/README.md"
    listed = {posixpath.join("docs", link.text) for link in links() if link.page == index}
    missing = [page for page in pages() if page.startswith("docs/") and page not in listed]
    assert missing == [index]
