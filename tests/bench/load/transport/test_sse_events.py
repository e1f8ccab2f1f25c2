from __future__ import annotations

import pytest

from bench.load.transport.sse_events import EventParser

STREAM = b"event: a\ndata: 1\n\n: comment\n\nretry: 5\n\ndata: 2\ndata: 3\n\ndata:4\n\nevent: x\n\n"


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_they_arrive(size: int, ending: bytes) -> None:
    stream = STREAM.replace(b"\n", ending)
    parser = EventParser()
    found = [
        event
        for start in range(0, len(stream), size)
        for event in parser.feed(stream[start : start + size])
    ]
    assert found == [("a", b"1"), ("", b"2\n3"), ("", b"4")]
    assert parser.clean


def test_what_is_cut_off_is_no_event() -> None:
    for cut in (b"data: 1\n", b"data: 1"):
        parser = EventParser()
        assert list(parser.feed(cut)) == []
        assert not parser.clean
