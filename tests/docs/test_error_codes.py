"""The page of the API lists every error code that a client can get, with its status."""

from __future__ import annotations

import ast
import re

from gateway import app, store
from gateway.api import auth
from gateway.schemas import errors
from tests.docs.support.pages import nodes_of, table, text_of, tracked

PAGE = "docs/reference/api.md"
# Clients never get these. The request is submitted again before its session fails, and each
# submission has an id of its own.
_NEVER_SENT = {"engine_failed", "duplicate_request"}
# Refusals of the HTTP server, with the status that it chose.
_OTHER_STATUS = {"http_error", "invalid_http", "headers_too_large"}


def in_the_code() -> dict[str, set[int]]:
    """The codes that the code passes to errors, with the statuses of these errors."""
    codes: dict[str, set[int]] = {}
    for file in tracked():
        if file.startswith("gateway/") and file.endswith(".py"):
            for node in nodes_of(file):
                _look_at(codes, node)
        elif file.startswith("workers/") and file.endswith(".py"):
            for node in nodes_of(file):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "RequestRejected":
                    code = node.args[0]  # an `InvalidRequest` for the client, unless it is a bug
                    bug = isinstance(code, ast.Constant) and code.value == "internal_error"
                    _add(codes, code, 500 if bug else 400)
    return codes


def _look_at(codes: dict[str, set[int]], node: ast.AST) -> None:
    match node:
        case ast.ClassDef():
            status = _status_of(node.name)
            for part in ast.walk(node):
                if isinstance(part, ast.Call) and ast.unparse(part.func) == "super().__init__":
                    _add(codes, _argument(part), status)
                elif isinstance(part, ast.FunctionDef) and part.name == "__init__":
                    _add(codes, _default(part), status)
        case ast.FunctionDef() if node.name != "__init__":
            made = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
            made = [call for call in made if isinstance(_argument(call), ast.Name)]
            for call in made:
                _add(codes, _default(node), _status_of(ast.unparse(call.func)))
        case ast.Call():
            _add(codes, _argument(node), _status_of(ast.unparse(node.func)))


def _argument(call: ast.Call) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)


def _default(function: ast.FunctionDef) -> ast.expr | None:
    arguments = function.args
    positional = arguments.args[len(arguments.args) - len(arguments.defaults) :]
    pairs = [
        *zip(positional, arguments.defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return next((default for argument, default in pairs if argument.arg == "code"), None)


def _status_of(error: str) -> int | None:
    for module in (errors, auth, app, store):
        status = getattr(getattr(module, error.rpartition(".")[2], None), "status", None)
        if isinstance(status, int):
            return status
    return None


def _add(codes: dict[str, set[int]], code: ast.expr | None, status: int | None) -> None:
    if isinstance(code, ast.Constant) and isinstance(code.value, str):
        statuses = codes.setdefault(code.value, set())
        if status is not None:
            statuses.add(status)


def on_the_page() -> dict[str, set[int]]:
    """The codes of the table, with their statuses."""
    return {
        code: {int(status) for status in re.findall(r"\d{3}", row[1])}
        for row in table(PAGE, "code")
        for code in re.findall(r"`(\w+)`", row[0])
    }


def test_every_code_that_a_client_can_get_is_listed_with_its_status() -> None:
    sent, listed = in_the_code(), on_the_page()
    assert sent.keys() >= _NEVER_SENT, "one of them is gone: remove it here, too"
    assert len(sent) > 20
    assert sorted(sent.keys() - _NEVER_SENT - listed.keys()) == [], f"not in {PAGE}"
    known = {code: statuses for code, statuses in sent.items() if statuses}
    assert len(known) > 20
    for code in sorted(known.keys() - _NEVER_SENT - _OTHER_STATUS):
        assert listed[code] == known[code], code


def test_every_listed_code_is_made_somewhere() -> None:
    assert sorted(on_the_page().keys() - in_the_code().keys()) == []


def test_every_error_class_has_the_status_of_the_tree_in_the_docstring() -> None:
    drawn = dict(re.findall(r"──\s*(\w+)\s+(\d{3})", text_of("gateway/schemas/errors.py")))
    real = {
        name: str(cls.status)
        for name, cls in {**vars(errors), **vars(store)}.items()
        if isinstance(cls, type) and issubclass(cls, errors.ApiError) and cls is not errors.ApiError
    }
    assert drawn == real
