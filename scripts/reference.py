"""Write the parts of ``docs/reference`` that the code knows, or check that they agree with it.

    python scripts/reference.py            # write
    python scripts/reference.py --check    # print what differs; exit status 1 if anything does

A generated part stands between two HTML comments that name it. Everything around it is written by
hand and stays as it is.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from command_pages import command_line
from metric_tables import metrics
from source_fields import SourceField, fields_of, sentence, type_words

from gateway import config as configuration
from pascal.config_flags import FLAGS
from workers import messages
from workers.checked import settings_of
from workers.emulation import device, roofline
from workers.emulation.profile import _SHIPPED, load_profile
from workers.policy.settings import PolicySettings

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
_WIDTH = 88
_PART = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[\w-]+)[^>]*-->\n)(?P<text>.*?)(?P<end><!-- end -->)",
    re.DOTALL,
)


def wrapped(text: str, indent: str = "") -> str:
    """A paragraph, or an item of a list whose further lines have this indent."""
    return textwrap.fill(
        text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of a docstring, as Markdown; drawings and indented blocks stay as they are."""
    for block in inspect.cleandoc(text).split("\n\n"):
        yield block if block.startswith("    ") else wrapped(sentence(" ".join(block.split())))


def item(name: str, facts: Iterable[str], text: str) -> str:
    """One item of a list: a name, facts about it in parentheses, and what it means."""
    text = text.replace(" * ", " `*` ")  # a line of Markdown that begins with it is an item
    head = f"- `{name}` ({', '.join(facts)})"
    return wrapped(f"{head}: {text}" if text else head, "  ")


def summary(cls: type) -> Iterator[str]:
    """What the docstring of a class says."""
    assert cls.__doc__ is not None
    yield from paragraphs(cls.__doc__)


# ---- configuration ------------------------------------------------------------------------------


def configuration_tables() -> Iterator[str]:
    """Every table of ``config.toml`` with its keys."""
    flags = {key: flag for flag, key, _ in FLAGS}
    short = {key: name for name, key in configuration.ENV_ALIASES.items()}
    keys = list(configuration.described())
    for table, cls in configuration.TABLES.items():
        yield f"## `[{table}]`"
        yield from summary(cls)
        items = []
        for key in keys:
            if key.table == table:
                name = f"{table}.{key.key}"
                facts = kind_facts(key.type, key.constraint, key.unit)
                facts.append(f"default `{key.default}`")
                facts += [f"flag `{flags[name]}`"] if name in flags else []
                facts += [f"variable `{short[name]}`"] if name in short else []
                items.append(item(key.key, facts, key.description))
        yield "\n".join(items)


def kind_facts(type_name: str, constraint: str, unit: str) -> list[str]:
    """The type, unit and bounds of a setting, as short as possible."""
    if constraint.startswith("one of "):
        choices = constraint.removeprefix("one of ").split(", ")
        return ["one of " + ", ".join(f"`{choice}`" for choice in choices)]
    kind = unit or re.sub(r"^an? ", "", type_name)
    return [kind, constraint] if constraint else [kind]


def policy_settings() -> Iterator[str]:
    """The settings of the scheduling policies."""
    items = []
    for setting in settings_of(PolicySettings).values():
        facts = kind_facts(setting.type_name, setting.constraint, setting.unit)
        facts.append(f"default `{json.dumps(setting.default)}`")
        items.append(item(setting.name, facts, setting.description))
    yield "\n".join(items)


# ---- messages and profiles ----------------------------------------------------------------------


def field_list(fields: Iterable[SourceField], linked: frozenset[str] = frozenset()) -> str:
    """Fields of a class as a list."""
    items = []
    for field in fields:
        facts = [type_words(field.kind, linked)]
        if field.default not in (None, "None"):
            facts.append(f"default `{_as_json(field.default)}`")
        items.append(item(field.name, facts, _json_words(field.comment)))
    return "\n".join(items)


def _json_words(text: str) -> str:
    """Replace Python's names for values by those of JSON, as code."""
    for name, word in (("None", "null"), ("True", "true"), ("False", "false")):
        text = re.sub(rf"(?<!`)\b{name}\b", f"`{word}`", text)
    return text


def _as_json(source: str | None) -> str:
    assert source is not None
    plain = {"()": "[]", "True": "true", "False": "false"}
    return plain.get(source, source.replace("'", '"'))


def structs(*classes: type, level: int) -> Iterator[str]:
    """Structs with their docstrings and fields, a heading each."""
    linked = frozenset(cls.__name__ for cls in (*_messages(), *_values()))
    for cls in classes:
        yield f"{'#' * level} {cls.__name__}"
        yield from summary(cls)
        if fields := fields_of(cls):
            yield field_list(fields, linked)


def _of_base(base: type) -> list[type]:
    return [
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base
    ]


def _messages() -> list[type]:
    return _of_base(messages.Message)


def _values() -> list[type]:
    return _of_base(messages.Value)


def worker_link() -> Iterator[str]:
    """Every message and every part of one."""
    to_worker = messages.ToWorker.__args__
    to_gateway = messages.ToGateway.__args__
    yield "## Messages from the gateway to a worker"
    yield from structs(*to_worker, level=3)
    yield "## Messages from a worker to the gateway"
    yield from structs(*to_gateway, level=3)
    yield "## Parts of messages"
    yield from structs(*_values(), level=3)


def link_order() -> Iterator[str]:
    """What the module says of the link as a whole."""
    assert messages.__doc__ is not None
    yield from list(paragraphs(messages.__doc__))[1:]


def measured_profile() -> Iterator[str]:
    """Tables of a profile that holds the numbers themselves."""
    yield from _profile_tables(device.DeviceProfile)
    yield "### `[step.table]`"
    yield from summary(device.BatchTable)
    yield field_list(fields_of(device.BatchTable))


def computed_profile() -> Iterator[str]:
    """Tables of a profile that is computed."""
    yield from _profile_tables(roofline.Roofline)


def _profile_tables(cls: type) -> Iterator[str]:
    for table in fields_of(cls):
        if hasattr(table.kind, "__struct_fields__"):
            yield f"### `[{table.name}]`"
            yield from summary(table.kind)
            yield field_list(fields_of(table.kind))


def shipped_profiles() -> Iterator[str]:
    """The profiles that come with pascal-serve."""
    rows = ["| profile | KV tokens | KV of a token | step of one request |"]
    rows.append("| --- | --- | --- | --- |")
    for file in sorted(_SHIPPED.glob("*.toml")):
        profile = load_profile(file.stem)
        step_ms = profile.step.seconds(1, 0, 0, 0) * 1e3
        rows.append(
            f"| `{file.stem}` | {profile.kv.tokens:,} | {profile.kv.bytes_per_token / 1024:g} KiB "
            f"| {step_ms:.1f} ms |"
        )
    yield "\n".join(rows)


# ---- pages --------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], Iterable[str]]] = {
    "command-line": command_line,
    "computed-profile": computed_profile,
    "configuration": configuration_tables,
    "link-order": link_order,
    "measured-profile": measured_profile,
    "metrics": metrics,
    "policy-settings": policy_settings,
    "shipped-profiles": shipped_profiles,
    "worker-link": worker_link,
}


def renewed(text: str) -> str:
    """A page with its generated parts as the code has them now."""

    def part(match: re.Match[str]) -> str:
        blocks = [match["begin"].rstrip(), *PARTS[match["name"]](), match["end"]]
        return "\n\n".join(blocks)

    return _PART.sub(part, text)


def pages() -> Iterator[tuple[Path, str, str]]:
    """Every page with a generated part: its file, its text, and its text as it should be."""
    for file in sorted(REFERENCE.glob("*.md")):
        text = file.read_text(encoding="utf-8")
        if _PART.search(text):
            yield file, text, renewed(text)


def main(argv: list[str] | None = None) -> int:
    """Write or check; returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="print what differs, write nothing")
    args = parser.parse_args(argv)
    status = 0
    for file, text, new in pages():
        if text == new:
            continue
        if args.check:
            status = 1
            lines, new_lines = text.splitlines(keepends=True), new.splitlines(keepends=True)
            sys.stdout.writelines(
                difflib.unified_diff(lines, new_lines, file.name, "as the code has it", n=1)
            )
        else:
            file.write_text(new, encoding="utf-8")
            print(f"wrote {file.name}")
    return status


if __name__ == "__main__":
    sys.exit(main())
