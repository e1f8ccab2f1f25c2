"""Errors of the worker.

WorkerError           the worker cannot start or go on
+-- RequestRejected   one request is wrong; the client can mend it
"""

from __future__ import annotations


class WorkerError(Exception):
    """The worker cannot start or go on; root of its errors."""


class RequestRejected(WorkerError):
    """A request that cannot be served as it is.

    ``code`` and ``param`` are as in `workers.messages.Rejected`: ``param`` names the offending
    field of `workers.messages.Submit`.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
