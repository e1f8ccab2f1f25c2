"""Cohere's formats, whose parsers need a package that set-up does not bring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.packages import install
from tests.workers.formats.support.families import Family
from tests.workers.formats.support.reading import Reading

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def melody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("melody")
    install(folder, ["cohere-melody==0.15.3"], "--no-deps")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


@pytest.mark.parametrize(
    ("name", "kind"), [("cohere_command3", "RESPONSE"), ("cohere_command4", "TEXT")]
)
def test_thoughts_and_answers_are_split_at_any_cut(name: str, kind: str) -> None:
    """Calls need a model of Cohere's architectures."""
    opens, closes = f"<|START_{kind}|>", f"<|END_{kind}|>"
    of = Reading(
        Family(
            name,
            start="<|START_THINKING|>",
            end="<|END_THINKING|>",
            markers=("<|START_ACTION|>", "<|END_ACTION|>", opens, closes, "<|CHATBOT_TOKEN|>"),
            opened=False,
        )
    )
    thoughts = "<|START_THINKING|>I add.<|END_THINKING|>"
    ids = of.ids(f"{thoughts}{opens}Four.{closes}")
    whole = of.read(ids, range(len(ids)))
    assert whole.segments == [("reasoning", "I add."), ("answer", "Four.")]
    assert whole.turns == [(len(of.ids(thoughts)), "answering")]
    for cut in range(1, len(ids)):
        assert of.read(ids, (cut,)) == whole, cut
