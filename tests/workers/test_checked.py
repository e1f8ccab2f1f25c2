"""Settings: what their errors say, and how texts become values."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
import pytest

from workers import checked
from workers.checked import SettingError, about


class Engine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table inside another."""

    slots: Annotated[int, about("Batch slots.", ge=1, le=64)]
    mode: Annotated[Literal["slow", "fast"], about("How it runs.")] = "slow"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table with a setting of each kind."""

    wait_s: Annotated[float, about("Pause.", ge=0)] = 1.0
    share: Annotated[float, about("Part of the memory.", gt=0)] = 0.5
    token: Annotated[str, about("Password.", secret=True)] = ""
    keys: Annotated[tuple[str, ...], about("Passwords.", secret=True)] = ()
    sizes: tuple[Annotated[int, msgspec.Meta(gt=0)], ...] = ()
    times: tuple[float, ...] = ()
    eager: Annotated[bool, about("Whether to compile.")] = False
    engine: Engine | None = None

    def __post_init__(self) -> None:
        checked.check(self)
        if self.share > self.wait_s:
            raise SettingError("share: must not be above wait_s")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"wait": 1}, "unknown key 'wait'; did you mean 'wait_s'?"),
        ({"xyz": 1}, "unknown key 'xyz'; known: eager, engine, keys, share, sizes, times, token,"),
        ({"wait_s": "1"}, "wait_s: expected a number, not '1'"),
        ({"wait_s": -1}, "wait_s: -1 is out of range (at least 0)"),
        ({"wait_s": math.inf}, "wait_s: inf is not a finite number"),
        ({"wait_s": math.nan}, "wait_s: nan is not a finite number"),
        ({"wait_s": 10**400}, "is out of range (at least 0)"),
        ({"share": 0}, "share: 0 is out of range (above 0)"),
        ({"share": 2, "wait_s": 1}, "share: must not be above wait_s"),
        ({"token": 12345}, "token: expected a text, not (hidden)"),
        ({"keys": 12345}, "keys: expected a list of texts, not (hidden)"),
        ({"sizes": [1, 0]}, "sizes: [1, 0] is out of range (each above 0)"),
        ({"times": [1.0, math.inf]}, "times: inf is not a finite number"),
        ({"eager": "yes"}, "eager: expected true or false, not 'yes'"),
        ({"engine": 3}, "engine: expected a table, not 3"),
        ({"engine": {}}, "missing key 'engine.slots'"),
        ({"engine": {"slot": 3}}, "unknown key 'engine.slot'; did you mean 'slots'?"),
        ({"engine": {"slots": 65}}, "engine.slots: 65 is out of range (from 1 to 64)"),
        ({"engine": {"slots": 1.5}}, "engine.slots: expected a whole number, not 1.5"),
        ({"engine": {"slots": 1, "mode": "quick"}}, "engine.mode: 'quick' is none of slow, fast"),
    ],
)
def test_an_error_names_the_key_the_value_and_what_is_allowed(
    document: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError) as caught:
        checked.convert(document, Settings)
    assert message in str(caught.value)
    assert "12345" not in str(caught.value)


def test_a_table_inside_another_is_made() -> None:
    made = checked.convert({"engine": {"slots": 2}, "wait_s": 3}, Settings)
    assert made == Settings(engine=Engine(slots=2), wait_s=3.0)


@pytest.mark.parametrize("value", [-1.0, math.inf, "2"])
def test_a_table_can_check_what_its_constructor_was_given(value: Any) -> None:
    with pytest.raises(SettingError, match="wait_s"):
        Settings(wait_s=value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("wait_s", "250ms", 0.25),
        ("wait_s", "1_0", 10.0),
        ("eager", "TRUE", True),
        ("token", "'a b'", "a b"),
        ("keys", "a, b,", ("a", "b")),
    ],
)
def test_texts_become_values_of_the_type(name: str, text: str, value: object) -> None:
    assert checked.from_text(checked.settings_of(Settings)[name], text, "here") == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("share", "250ms", "here: expected a number, not '250ms'"),  # no duration
        ("eager", "yes", "here: expected true or false, not 'yes'"),
        ("token", "'a'b'", "here: (hidden) cannot be read as in the file"),
    ],
)
def test_a_text_that_is_no_value_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(SettingError) as caught:
        checked.from_text(checked.settings_of(Settings)[name], text, "here")
    assert message in str(caught.value)


def test_a_pair_has_a_separator() -> None:
    assert checked.split_pair("a=b=c") == ("a", "b=c")
    with pytest.raises(SettingError, match="a: expected KEY=VALUE"):
        checked.split_pair("a")


def test_settings_state_what_they_are() -> None:
    settings = checked.settings_of(Settings)
    assert (settings["wait_s"].unit, settings["share"].unit) == ("seconds", "")
    assert settings["share"].description == "Part of the memory."
    assert checked.settings_of(Engine)["mode"].choices == ("slow", "fast")
    assert checked.settings_of(Engine)["slots"].default is msgspec.NODEFAULT
