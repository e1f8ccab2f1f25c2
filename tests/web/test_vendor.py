"""The vendored libraries match their manifest, and the pages load nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from vendor_web import PACKAGES, VENDOR, as_module, imported, joined, patched, problems

WEB = VENDOR.parent


def test_hashes_and_licences() -> None:
    assert problems(VENDOR) == []
    manifest = json.loads((VENDOR / "manifest.json").read_text(encoding="utf-8"))
    recorded = {
        (entry["name"], entry["version"], entry["licence"]) for entry in manifest["packages"]
    }
    assert recorded == {(package.name, package.version, package.licence) for package in PACKAGES}
    assert all(entry["licence_files"] for entry in manifest["packages"])


def test_a_changed_a_missing_and_an_added_file_are_found(tmp_path: Path) -> None:
    copy = tmp_path / "vendor"
    shutil.copytree(VENDOR, copy)
    (copy / "preact-htm.js").write_text("changed", encoding="utf-8")
    (copy / "marked.js").unlink()
    (copy / "added.js").touch()
    assert problems(copy) == [
        "marked.js: in the manifest, but missing",
        "added.js: not in the manifest",
        "preact-htm.js: SHA-256 differs from the manifest",
    ]


def test_patching() -> None:
    source = (
        'import{options as n}from"preact";import "preact/hooks";\nx;\n//# sourceMappingURL=a.map\n'
    )
    assert (
        patched(source) == 'import{options as n}from"./preact.js";import "./preact-hooks.js";\nx;\n'
    )
    with pytest.raises(SystemExit, match="left-pad"):
        patched('import x from "left-pad";')


def test_only_statements_count_as_imports() -> None:
    text = """import{a}from"./a.js";const keywords=["from","import","as"];
import "./b.js";
export { c } from "./c.js";export*from'./d.js';x("import y from 'z'")"""
    assert imported(text) == ["./a.js", "./b.js", "./c.js", "./d.js"]


def test_a_universal_script_becomes_a_module() -> None:
    text = as_module("module.exports = 1;")
    assert text.startswith("const module = { exports: {} };")
    assert text.endswith("module.exports = 1;\nexport default module.exports;\n")


def test_joined_modules_export_what_their_parts_do(tmp_path: Path) -> None:
    """Names inside of one part are no names of another."""
    parts = {
        "a.js": "const n=1;function f(){return n}export{f as one,n as two};",
        "b-c.js": 'import{one as n,two}from"./a.js";const f=()=>n()+two+1;export{f as three};',
        "d.js": "const n=4;export default n",
    }
    (tmp_path / "all.mjs").write_text(joined(parts), encoding="utf-8")
    script = 'import * as all from "./all.mjs"; console.log(all.one(), all.two, all.three(), all.d)'
    (tmp_path / "use.mjs").write_text(script, encoding="utf-8")
    said = subprocess.run(
        ["node", tmp_path / "use.mjs"], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["1", "1", "3", "4"]
    with pytest.raises(SystemExit, match="cannot be joined"):
        joined({"a.js": "export * from './b.js'"})


def test_the_font_is_small() -> None:
    assert sum(path.stat().st_size for path in VENDOR.rglob("*.woff2")) < 120_000


def test_every_import_is_relative_and_exists() -> None:
    scripts = sorted(WEB.rglob("*.js"))
    assert scripts
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        for target in imported(text):
            assert target.startswith("."), f"{script.name} imports {target}"
            assert (script.parent / target).is_file(), f"{script.name} imports {target}"


def test_the_page_has_nothing_inline() -> None:
    """The content security policy would silently drop inline code."""
    html = (WEB / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)", html) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", html) == []
    for address in re.findall(r'(?:src|href)="([^"]+)"', html):
        assert address.startswith("/static/")
        assert (WEB / address.removeprefix("/static/")).is_file()
