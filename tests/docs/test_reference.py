"""The generated parts of the reference are what the code has now."""

from __future__ import annotations

import re

import pytest
import reference

from gateway.config import described
from pascal.config_flags import FLAGS
from tests.docs.support.pages import text_of


def test_the_generated_parts_agree_with_the_code() -> None:
    stale = [file.name for file, text, new in reference.pages() if text != new]
    assert not stale, "run `.venv/bin/python scripts/reference.py` and commit what it writes"


def test_every_part_stands_on_a_page() -> None:
    named = re.findall(r"<!-- generated: ([\w-]+)", "".join(t for _, t, _ in reference.pages()))
    assert sorted(named) == sorted(reference.PARTS)


def test_every_key_and_flag_of_the_configuration_is_there() -> None:
    page = text_of("docs/reference/configuration.md")
    for key in described():
        assert f"\n- `{key.key}` (" in page, f"{key.table}.{key.key}"
    for flag, _, _ in FLAGS:
        assert f"flag `{flag}`" in page.replace("\n ", ""), flag


@pytest.mark.parametrize(
    ("page", "now", "before"),
    [
        ("configuration.md", "default `8080`", "default `8081`"),
        ("command-line.md", "`--no-wait`", "`--wait`"),
        ("worker-link.md", "- `tau_s` (number)", "- `tau_s` (text)"),
        ("metrics.md", "{instance,phase}` | gauge", "{instance}` | gauge"),
        ("profiles.md", "| `h100-qwen32b` | 90,000 |", "| `h100-qwen32b` | 80,000 |"),
    ],
)
def test_the_check_can_fail(page: str, now: str, before: str) -> None:
    text = text_of(f"docs/reference/{page}")
    assert now in text
    assert reference.renewed(text.replace(now, before)) == text
