"""The base of the tables of the configuration, and types that several of them use."""

from __future__ import annotations

from typing import Annotated

import msgspec

from workers.checked import settings_of

Texts = tuple[Annotated[str, msgspec.Meta(pattern=r"\S")], ...]  # none of them blank


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration; its ``repr`` leaves secrets out."""

    def __repr__(self) -> str:
        shown = (
            f"{name}={getattr(self, name)!r}"
            for name, setting in settings_of(type(self)).items()
            if not setting.secret
        )
        return f"{type(self).__name__}({', '.join(shown)})"
