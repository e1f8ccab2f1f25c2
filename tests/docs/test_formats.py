"""The page on formats has the table of what the golden tests cover."""

from tests.docs.support.pages import text_of
from tests.workers.formats.support.coverage import table


def test_the_page_has_the_table_of_covered_parsers() -> None:
    page = "docs/explanation/formats.md"
    assert table() in text_of(page), "run python -m tests.workers.formats.support.coverage"
