"""Settings read from text and checked; every error names the key, the value and what is allowed.

A table of settings is a `msgspec.Struct` with ``forbid_unknown_fields``. The annotation of a field
states its type, or its choices as a ``Literal``, and in `about` its bounds and description. This
module knows no table in particular.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import inspect

T = TypeVar("T", bound=msgspec.Struct)

_UNITS = {"s": "seconds", "bytes": "bytes", "gib": "GiB", "days": "days", "tokens": "tokens"}
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
# The messages of msgspec: what is wrong, and where.
_MESSAGE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_BOUND = re.compile(r"Expected `\w+` [<>]|Number out of range")
_TYPE = re.compile(r"Expected `[^`]*`, got|Expected `str` ")


class SettingError(ValueError):
    """A setting is unknown or wrong; the message names it."""


def about(
    description: str, *, unit: str = "", secret: bool = False, **bounds: float
) -> msgspec.Meta:
    """Describe and bound a setting, inside ``Annotated``.

    :param unit: of the value; not needed where the name of the setting ends in it.
    :param secret: messages do not show the value.
    :param bounds: ``ge``, ``gt``, ``le`` and ``lt``, as for `msgspec.Meta`.
    """
    options: dict[str, Any] = {"extra": {"unit": unit, "secret": secret}, **bounds}
    return msgspec.Meta(description=description, **options)


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a table of settings, as its annotation states it."""

    name: str
    info: inspect.Type
    default: Any  # `msgspec.NODEFAULT`: the key is required
    description: str = ""
    unit: str = ""
    secret: bool = False
    choices: tuple[Any, ...] = ()  # the values to choose from; empty: no such list

    @property
    def type_name(self) -> str:
        """The type of the value, in words."""
        match self.info:
            case inspect.BoolType():
                return "true or false"
            case inspect.IntType():
                return "a whole number"
            case inspect.FloatType():
                return "a number"
            case inspect.VarTupleType(item_type=inspect.StrType()):
                return "a list of texts"
            case inspect.VarTupleType():
                return "a list of numbers"
            case inspect.StructType():
                return "a table"
        return "a text"

    @property
    def constraint(self) -> str:
        """The values that are allowed, in words; empty if all of the type are."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        each = isinstance(self.info, inspect.VarTupleType)
        info = self.info.item_type if isinstance(self.info, inspect.VarTupleType) else self.info
        if not isinstance(info, inspect.IntType | inspect.FloatType):
            return ""
        if info.ge is not None and info.le is not None:
            return f"from {info.ge} to {info.le}"
        bounds = {"at least": info.ge, "above": info.gt, "at most": info.le, "below": info.lt}
        words = [f"{word} {bound}" for word, bound in bounds.items() if bound is not None]
        return ("each " if each and words else "") + " and ".join(words)

    def refusal(self, value: Any, what: str) -> str:
        """Say why ``value`` is refused; ``what`` is how msgspec says it."""
        shown = "(hidden)" if self.secret else repr(value)
        items = value if isinstance(value, list | tuple) else ()
        if any(isinstance(item, str) and not item.strip() for item in items):
            return "an entry of the list is empty"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{value} is not a finite number"
        if self.choices:
            return f"{shown} is none of {', '.join(map(str, self.choices))}"
        if _BOUND.match(what):
            return f"{shown} is out of range ({self.constraint})"
        return f"expected {self.type_name}, not {shown}" if _TYPE.match(what) else what


@cache
def settings_of(table: type[msgspec.Struct]) -> Mapping[str, Setting]:
    """The settings of a table by name, in its order."""
    settings = {}
    for field in msgspec.structs.fields(table):
        info, description, extra = inspect.type_info(field.type), "", {}
        if isinstance(info, inspect.Metadata):
            description = (info.extra_json_schema or {}).get("description", "")
            extra = info.extra or {}
            info = info.type
        if isinstance(info, inspect.UnionType):  # with None
            info = next(one for one in info.types if not isinstance(one, inspect.NoneType))
        unit = extra.get("unit") or _UNITS.get(field.name.rpartition("_")[2], "")
        secret = extra.get("secret", False)
        choices = _choices(field.type)
        settings[field.name] = Setting(
            field.name, info, field.default, description, unit, secret, choices
        )
    return settings


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The values of a ``Literal`` in their order, which `inspect` does not keep."""
    if get_origin(annotation) is Annotated:
        annotation = annotation.__origin__
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def convert(document: Mapping[str, Any], table: type[T]) -> T:
    """Make a table, and those inside it, of plain values.

    :raises SettingError: naming the first wrong key by its path, such as ``server.port``.
    """
    try:
        made = msgspec.convert(document, table)
    except msgspec.ValidationError as error:
        raise SettingError(_explained(str(error), document, table)) from error
    _check_finite(made)
    return made


def check(made: msgspec.Struct) -> None:
    """Check a table that was made by its constructor, which checks nothing.

    To be called in ``__post_init__`` before any other check; so it takes one field at a time.

    :raises SettingError: as `convert` does.
    """
    for field in msgspec.structs.fields(type(made)):
        value = getattr(made, field.name)
        try:
            msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            refusal = settings_of(type(made))[field.name].refusal(value, str(error))
            raise SettingError(f"{field.name}: {refusal}") from error
    _check_finite(made)


def _explained(message: str, document: Mapping[str, Any], table: type[msgspec.Struct]) -> str:
    said = _MESSAGE.fullmatch(message)
    assert said is not None  # the pattern matches any text
    path = [re.sub(r"\[.*", "", part) for part in (said["path"] or "").split(".") if part]
    value: Any = document
    setting, kind = None, table
    for part in path:
        setting, value = settings_of(kind)[part], value[part]
        if isinstance(setting.info, inspect.StructType):
            kind = setting.info.cls
    if unknown := _UNKNOWN.fullmatch(said["what"]):
        name = ".".join([*path, unknown[1]])
        return f"unknown key {name!r}; {nearest(unknown[1], settings_of(kind))}"
    if missing := _MISSING.fullmatch(said["what"]):
        return f"missing key {'.'.join([*path, missing[1]])!r}"
    what = setting.refusal(value, said["what"]) if setting is not None else said["what"]
    return f"{'.'.join(path)}: {what}" if path else what


def _check_finite(value: Any, path: str = "") -> None:
    """Refuse infinity and NaN, which bounds let through: a timer must end."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            _check_finite(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, tuple):
        for item in value:
            _check_finite(item, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise SettingError(f"{path}: {value} is not a finite number")


def closest(name: str, known: Iterable[str]) -> str | None:
    """The one of the known names that ``name`` may be a slip of; None if none is near."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def nearest(name: str, known: Iterable[str], *, among: str = "known") -> str:
    """A hint for an unknown name: its nearest neighbour, or all known names if none is near.

    :param among: how to introduce all of them.
    """
    names = sorted(known)
    near = closest(name, names)
    return f"did you mean {near!r}?" if near else f"{among}: {', '.join(names)}"


def split_pair(text: str, form: str = "KEY=VALUE") -> tuple[str, str]:
    """Split ``key=value``.

    :param form: how a message calls the form.
    :raises SettingError: there is no ``=``.
    """
    key, separator, value = text.partition("=")
    if not separator:
        raise SettingError(f"{text}: expected {form}")
    return key, value


def seconds(text: str) -> float:
    """Seconds of ``30s``, ``500ms``, ``2m``, ``1h`` or a plain number of seconds.

    :raises SettingError: it is none of them.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise SettingError(f"{text!r} is not a duration such as 30s, 500ms or 2m")
    return float(match[1]) * _SECONDS[match[2]]


def from_text(setting: Setting, text: str, where: str) -> Any:
    """Read the text of a flag or an environment variable as the type of its setting.

    It may be written as in a TOML file. A text needs no quotes, a list may be plain words with
    commas between, and a duration may have a unit. Bounds are not checked here.

    :param where: what the text comes from, for messages.
    :raises SettingError: it cannot be read as this type.
    """
    text = text.strip()
    shown = "(hidden)" if setting.secret else repr(text)
    if isinstance(setting.info, inspect.VarTupleType):
        return _list_from_text(text, where, shown)
    if isinstance(setting.info, inspect.StrType | inspect.LiteralType):
        quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'"
        return _toml_value(text, where, shown) if quoted else text
    if setting.unit == "seconds" and _DURATION.fullmatch(text):
        return seconds(text)
    kind: Any = {inspect.BoolType: bool, inspect.IntType: int}.get(type(setting.info), float)
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        try:  # a number that only TOML reads, such as 1_000
            return msgspec.convert(_toml_value(text, where, shown), kind)
        except (SettingError, msgspec.ValidationError):
            raise SettingError(f"{where}: expected {setting.type_name}, not {shown}") from error


def _list_from_text(text: str, where: str, shown: str) -> tuple[str, ...]:
    """Read ``["a", "b"]`` as in a file, or ``a,b``, but no mixture of both."""
    if text.startswith("["):
        items = _toml_value(text, where, shown)
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise SettingError(f"{where}: expected a list of texts, not {shown}")
        return tuple(items)
    if any(character in text for character in "[]\"'"):
        raise SettingError(f'{where}: expected ["a", "b"] as in the file, or a,b; not {shown}')
    if not text:
        return ()
    # An empty entry may come from a variable that is not set; the check of the list refuses it.
    first, *others = (part.strip() for part in text.split(","))
    if first and others and not others[-1]:
        others.pop()  # a comma at the end is allowed, as in the file
    return (first, *others)


def _toml_value(text: str, where: str, shown: str) -> Any:
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{where}: {shown} cannot be read as in the file: {error}") from error
    if document.keys() != {"value"}:
        raise SettingError(f"{where}: expected one value, not {shown}")
    return document["value"]
