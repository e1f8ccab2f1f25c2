"""What is known of a client before it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from tests.support.programs import NODE, NPM, Program

HERE: Final = Path(__file__).resolve().parent

Server: TypeAlias = Literal["embedded", "inside", "emulated", "agents"]
Installer: TypeAlias = Literal["pypi", "npm"]


@dataclass(frozen=True, slots=True)
class Client:
    """A client, what it consists of, and what its program needs.

    The program gets the addresses of `servers`, in this order, as its arguments.

    - ``embedded``: the embedded model.
    - ``inside``: the same, and its calls open inside its thoughts.
    - ``emulated``: emulated instances, for prompts that the embedded model has no room for. Their
      text is scripted.
    - ``agents``: two of them with a context of 200,000 tokens, on a device that is faster than any.
    """

    name: str  # of the row on the page
    installer: Installer
    packages: tuple[str, ...]  # with versions; the first one is the client itself
    program: str  # below tests/compat: a .py for the client's Python, a .mjs, or a .sh
    servers: tuple[Server, ...] = ("embedded",)
    limit_minutes: float = 5.0  # for its program, without what is installed
    of_venv: tuple[str, ...] = ()  # without packages: their names in .venv, where one of them is
    constraints: tuple[str, ...] = ()  # further packages, for the resolver alone

    @property
    def key(self) -> str:
        """The name for the command line and for its folder."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")

    @property
    def path(self) -> Path:
        """Its program."""
        return HERE / self.program

    @property
    def programs(self) -> tuple[Program, ...]:
        """What must be on the machine."""
        return (NODE, NPM) if self.installer == "npm" else ()


def name_of(package: str) -> str:
    """The name in a requirement of PyPI or npm: ``@ai-sdk/openai@3.0.1``, ``litellm[proxy]==1``."""
    found = re.match(r"@?[A-Za-z0-9._/-]+", package)
    if found is None:
        raise ValueError(f"this names no package: {package}")
    return found[0]
