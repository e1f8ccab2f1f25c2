"""Copy the libraries that the web pages use from npm packages into web/vendor.

Run it to change a version (`PACKAGES` below), and commit what it writes:

    python scripts/vendor_web.py            # fetch with the npm client, rewrite web/vendor
    python scripts/vendor_web.py --check    # only compare web/vendor with its manifest, offline

Files are copied as published, without a build step, except for four patches. Bare imports become
relative ones, because a strict content security policy allows no import map. The reference to the
source map is removed, because the map is not copied. A script that is no ES module gets a default
export. What the chat page needs before all else is joined into one file (`JOINED`), because on a
slow network each file costs time.

`web/vendor/manifest.json` records the version, licence and npm integrity of each package, and the
SHA-256 of every file, and of the parts of one that was joined.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).resolve().parents[1] / "web" / "vendor"


@dataclass(frozen=True, slots=True)
class Package:
    """One npm package and the files used: path in the package -> name in web/vendor."""

    name: str
    version: str
    licence: str  # SPDX, as its package.json must say
    files: dict[str, str]
    universal: bool = False  # its files are UMD scripts, not ES modules
    variable: str = ""  # of scripts that are no modules: the variable in which they put themselves


# Languages of highlight.js, each loaded with the first block in it.
LANGUAGES = (
    *("bash", "c", "cpp", "csharp", "css", "diff", "dockerfile", "go", "haskell", "ini", "java"),
    *("javascript", "json", "julia", "kotlin", "latex", "lua", "makefile", "markdown", "perl"),
    *("php", "powershell", "python", "r", "ruby", "rust", "scala", "shell", "sql", "swift"),
    *("typescript", "xml", "yaml"),
)
PACKAGES = (
    Package(
        "preact",
        "11.2.0",
        "MIT",
        {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "preact-hooks.js"},
    ),
    Package("htm", "3.1.1", "Apache-2.0", {"dist/htm.mjs": "htm.js"}),
    Package("marked", "18.2.1", "MIT", {"lib/marked.esm.js": "marked.js"}),
    Package(
        "dompurify", "3.4.18", "(MPL-2.0 OR Apache-2.0)", {"dist/purify.es.mjs": "dompurify.js"}
    ),
    Package("katex", "0.19.1", "MIT", {"dist/katex.min.js": "katex.js"}, universal=True),
    Package(
        "@highlightjs/cdn-assets",
        "11.12.0",
        "BSD-3-Clause",
        {
            "es/core.min.js": "highlight.js",
            **{f"es/languages/{name}.min.js": f"highlight/{name}.js" for name in LANGUAGES},
        },
    ),
    Package(
        "@fontsource-variable/inter",
        "5.3.0",
        "OFL-1.1",
        {"files/inter-latin-wght-normal.woff2": "inter.woff2"},
    ),
    Package(
        "uplot",
        "1.6.32",
        "MIT",
        {"dist/uPlot.iife.min.js": "uplot.js", "dist/uPlot.min.css": "uplot.css"},
        variable="uPlot",
    ),
)
BARE_IMPORTS = {"preact": "./preact.js", "preact/hooks": "./preact-hooks.js"}
# A file -> the files that it is made of, each after those that it imports.
JOINED = {"preact-htm.js": ("preact.js", "preact-hooks.js", "htm.js")}
LICENCE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENSE-MPL", "LICENSE-APACHE")


def imported(source: str) -> list[str]:
    """What the static import and export statements of a module name, in their order."""
    found = re.findall(
        r"""(?:^|[;}\n])\s*(?:(?:import|export)\b[^;"'()]*?\bfrom|import)\s*["']([^"']+)["']""",
        source,
    )
    return [str(name) for name in found]


def as_module(source: str) -> str:
    """A UMD script as an ES module with a default export."""
    return (
        "const module = { exports: {} };\nconst exports = module.exports;\n"
        f"{source}\nexport default module.exports;\n"
    )


def patched(source: str) -> str:
    """The published module with relative imports and without its source map reference."""
    for bare, relative in BARE_IMPORTS.items():
        source = re.sub(
            rf"""(\bfrom\s*|\bimport\s*)(["']){re.escape(bare)}\2""",
            rf"\g<1>\g<2>{relative}\g<2>",
            source,
        )
    source = re.sub(r"\n?//# sourceMappingURL=\S+\s*\Z", "\n", source)
    left = [name for name in imported(source) if not name.startswith(".")]
    if left:
        raise SystemExit(f"bare imports left: {left}; add them to BARE_IMPORTS")
    return source


def _variable(name: str) -> str:
    """The name of a file as one of JavaScript."""
    return re.sub(r"\W", "_", name)


def joined(parts: dict[str, str]) -> str:
    """ES modules as one that exports what all of them do; a default export by its file's name.

    :param parts: file name -> source, each after those that it imports.
    """
    lines = []
    for name, source in parts.items():
        variable = _variable(name.removesuffix(".js"))
        exports: dict[str, str] = {}

        def imports(match: re.Match[str]) -> str:
            values = re.sub(r"(\w+) as (\w+)", r"\1:\2", match[1])
            return f"const{{{values}}}={_variable(match[2])}_;"

        def named(match: re.Match[str], exports: dict[str, str] = exports) -> str:
            for pair in match[1].split(","):
                inner, _, outer = pair.strip().partition(" as ")
                exports[outer or inner] = inner
            return ""

        body = re.sub(
            r"""import\s*\{([^}]*)\}\s*from\s*["']\./([^"']+)\.js["'];?""", imports, source
        )
        body = re.sub(r"export\s*\{([^}]*)\};?", named, body)
        if "export default " in body:
            body = body.replace("export default ", "const theDefault = ", 1)
            exports[variable] = "theDefault"
        if left := re.search(r"\b(?:import|export)\b[^\n]{0,40}", body):
            raise SystemExit(f"{name} cannot be joined: {left.group()}")
        values = ",".join(f"{outer}:{inner}" for outer, inner in exports.items())
        lines.append(f"const {variable}_=(()=>{{{body.strip()}\nreturn{{{values}}};}})();")
        lines.append(f"export const{{{','.join(exports)}}}={variable}_;")
    return "\n".join(lines) + "\n"


def join(target: Path) -> dict[str, Any]:
    """Join the files of `JOINED` in ``target``; their entries in the manifest."""
    entries = {}
    for name, parts in JOINED.items():
        sources = {part: (target / part).read_text(encoding="utf-8") for part in parts}
        (target / name).write_text(joined(sources), encoding="utf-8")
        for part in parts:
            (target / part).unlink()
        entries[name] = {"parts": list(parts), "sha256": sha256(target / name)}
    return entries


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def vendor(package: Package, target: Path) -> dict[str, Any]:
    """Fetch one package into ``target``; returns its entry in the manifest."""
    with tempfile.TemporaryDirectory() as folder:
        packed = json.loads(
            subprocess.run(
                [
                    *("npm", "pack", f"{package.name}@{package.version}", "--json"),
                    *("--pack-destination", folder),
                ],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        archive = packed[0] if isinstance(packed, list) else next(iter(packed.values()))
        with tarfile.open(Path(folder, archive["filename"])) as tar:
            tar.extractall(folder, filter="data")
        root = Path(folder, "package")
        licence = json.loads((root / "package.json").read_text(encoding="utf-8"))["license"]
        if licence != package.licence:
            raise SystemExit(f"{package.name}: licence is {licence}, expected {package.licence}")
        entry: dict[str, Any] = {
            "name": package.name,
            "version": package.version,
            "licence": licence,
            "npm_integrity": archive["integrity"],
            "licence_files": {},
            "files": {},
        }
        for name in LICENCE_FILES:
            if (root / name).is_file():
                own = package.name.removeprefix("@").replace("/", "-")
                copy = target / "licences" / f"{own}-{name.removesuffix('.md')}.txt"
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / name, copy)
                entry["licence_files"][f"licences/{copy.name}"] = sha256(copy)
        if not entry["licence_files"]:
            raise SystemExit(f"{package.name} carries no licence text")
        for source, name in package.files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if not name.endswith(".js"):
                shutil.copyfile(root / source, target / name)
            else:
                text = patched((root / source).read_text(encoding="utf-8"))
                text = as_module(text) if package.universal else text
                text += f"export default {package.variable};\n" if package.variable else ""
                (target / name).write_text(text, encoding="utf-8")
            entry["files"][name] = {"source": source, "sha256": sha256(target / name)}
    return entry


def problems(target: Path) -> list[str]:
    """Differences of ``target`` from its manifest: wrong hashes, missing or unrecorded files."""
    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    recorded: dict[str, str] = {}
    for entry in manifest["packages"]:
        recorded |= entry["licence_files"]
        recorded |= {name: file["sha256"] for name, file in entry["files"].items()}
    for name, entry in manifest["joined"].items():
        recorded[name] = entry["sha256"]
        for part in entry["parts"]:
            del recorded[part]
    present = {
        path.relative_to(target).as_posix()
        for path in target.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    found = [f"{name}: in the manifest, but missing" for name in sorted(recorded.keys() - present)]
    found += [f"{name}: not in the manifest" for name in sorted(present - recorded.keys())]
    found += [
        f"{name}: SHA-256 differs from the manifest"
        for name in sorted(present & recorded.keys())
        if sha256(target / name) != recorded[name]
    ]
    return found


def main() -> int:
    """Entry point; :return: 0 if web/vendor matches its manifest."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare only, fetch nothing")
    if not parser.parse_args().check:
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder, "vendor")
            fresh.mkdir()
            entries = [vendor(package, fresh) for package in PACKAGES]
            manifest = json.dumps({"packages": entries, "joined": join(fresh)}, indent=2) + "\n"
            (fresh / "manifest.json").write_text(manifest, encoding="utf-8")
            shutil.rmtree(VENDOR, ignore_errors=True)
            shutil.copytree(fresh, VENDOR)
    found = problems(VENDOR)
    print("\n".join(found) or f"{VENDOR.name}: as its manifest says", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
