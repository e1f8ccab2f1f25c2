"""What the reference and ``pascal check`` print of the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from gateway.config.tables import ENV_ALIASES, TABLES, Config
from workers.checked import settings_of


class Key(NamedTuple):
    """What the reference says about one key."""

    table: str
    key: str
    type: str  # in words, such as "a whole number"
    default: str  # as in ``config.toml``
    constraint: str  # such as "at least 1"; empty: every value of the type
    unit: str  # such as "seconds"; empty: none
    description: str
    variable: str  # the environment variable that sets it


def described() -> Iterator[Key]:
    """Every key of the configuration, in the order of the tables."""
    variables = {name: variable for variable, name in ENV_ALIASES.items()}
    for table, kind in TABLES.items():
        for key, stated in settings_of(kind).items():
            name = f"{table}.{key}"
            yield Key(
                table,
                key,
                stated.type_name,
                toml_value(stated.default),
                stated.constraint,
                stated.unit,
                stated.description,
                variables.get(name, f"PASCAL_{table}_{key}".upper()),
            )


def as_toml(config: Config) -> str:
    """The whole configuration as a file, without secrets."""
    lines = []
    for table, kind in TABLES.items():
        lines.append(f"[{table}]")
        for key, stated in settings_of(kind).items():
            value = getattr(getattr(config, table), key)
            lines.append(f"{key} = {toml_value('(hidden)' if stated.secret and value else value)}")
        lines.append("")
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    """One value as it is written in a TOML file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return repr(value)
