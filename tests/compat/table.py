"""The clients of `make compat`: one entry for each.

A client is installed from PyPI or npm in exactly these versions, into a folder of its own. Its
program talks to the servers that it names, prints a line for each case (`compat_cases.py`), and
ends with a status other than 0 if a case failed. Clients of Python are in `python_clients.py`,
those of Node.js in `node_clients.py`.
"""

from __future__ import annotations

from tests.compat.client import Client
from tests.compat.node_clients import NODE_CLIENTS
from tests.compat.python_clients import PYTHON_CLIENTS


def all_clients() -> list[Client]:
    """Every client, in the order in which they run."""
    return [*PYTHON_CLIENTS, *NODE_CLIENTS]
