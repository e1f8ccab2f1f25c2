"""The page of the protocol lists every error code that a client can get, with its status."""

from __future__ import annotations

import ast
import re

from gateway import app, auth, errors
from tests.docs.pages import table, text_of, tracked, tree_of

PAGE = "docs/protocol.md"
# In the code, but no client sees them: the cluster submits such a request again before its session
# hears of it.
_NEVER_SENT = {"tokens_lost", "engine_error", "given_up"}
_OTHER_STATUS = {"http_error"}  # that of the HTTP server's own refusal


def in_the_code() -> dict[str, set[int]]:
    """Codes that errors are made with, and the status of those errors."""
    found: dict[str, set[int]] = {}
    for file in (name for name in tracked() if name.startswith("gateway/")):
        if not file.endswith(".py"):
            continue
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.ClassDef):
                for call in ast.walk(node):
                    if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__":
                        _add(found, node.name, call)
            elif isinstance(node, ast.Call):
                _add(found, ast.unparse(node.func).rpartition(".")[2], node)
            elif isinstance(node, ast.FunctionDef):
                for argument, default in _defaults(node):
                    if argument.arg == "code" and isinstance(default, ast.Constant):
                        found.setdefault(str(default.value), set()).add(400)
    return found


def _defaults(node: ast.FunctionDef) -> list[tuple[ast.arg, ast.expr | None]]:
    return list(zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True))


def _add(found: dict[str, set[int]], error: str, call: ast.Call) -> None:
    for keyword in call.keywords:
        if keyword.arg != "code" or not isinstance(keyword.value, ast.Constant):
            continue
        for module in (errors, auth, app):
            if status := getattr(getattr(module, error, None), "status", None):
                found.setdefault(str(keyword.value.value), set()).add(status)
                break
        else:
            found.setdefault(str(keyword.value.value), set())


def on_the_page() -> dict[str, set[int]]:
    """Codes and their status in the table."""
    return {
        code: {int(status) for status in re.findall(r"\d{3}", row[1])}
        for row in table(PAGE, "code")
        for code in re.findall(r"`(\w+)`", row[0])
    }


def test_every_code_that_a_client_can_get_is_listed_with_its_status() -> None:
    sent, said = in_the_code(), on_the_page()
    assert sent.keys() >= _NEVER_SENT, "one of them is gone: take it out here, too"
    assert len(sent) > 20
    assert sorted(sent.keys() - _NEVER_SENT - said.keys()) == [], f"not in {PAGE}"
    for code in sorted(sent.keys() - _NEVER_SENT - _OTHER_STATUS):
        assert said[code] == sent[code], code


def test_every_listed_code_is_made_somewhere() -> None:
    assert sorted(on_the_page().keys() - in_the_code().keys()) == []


def test_every_error_class_has_the_status_of_the_tree_in_the_docstring() -> None:
    drawn = dict(re.findall(r"──\s*(\w+)\s+(\d{3})", text_of("gateway/errors.py")))
    real = {
        name: str(cls.status)
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, errors.ApiError) and cls is not errors.ApiError
    }
    assert drawn == real
