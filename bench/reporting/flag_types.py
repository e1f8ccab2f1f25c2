"""Types of flags for `argparse`: each reads one text and says what is wrong with it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from workers.checked import SettingError, seconds

T = TypeVar("T")


def list_of(read: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """A type for comma-separated values, without repetitions.

    :param read: the type of one value.
    """

    def read_list(text: str) -> tuple[T, ...]:
        parts = [part.strip() for part in text.split(",")]
        if not all(parts):
            raise argparse.ArgumentTypeError(f"{text!r} has an empty part")
        return tuple(dict.fromkeys(read(part) for part in parts))

    return read_list


def above_0(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def share(text: str) -> float:
    """A share above 0 and up to 1."""
    value = above_0(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 and up to 1")
    return value


def count(text: str) -> int:
    """A whole number above 0."""
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def whole_number(text: str) -> int:
    """A whole number from 0."""
    if not re.fullmatch(r"\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def duration(text: str) -> float:
    """A duration such as ``30s``, in seconds."""
    try:
        return seconds(text)
    except SettingError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def one_of(known: Sequence[str]) -> Callable[[str], str]:
    """A type for one of the known words."""

    def read(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(known)}")
        return text

    return read
