"""A PostgreSQL server of the tests' own: in a temporary folder, as an unprivileged user."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.gateway.support.real_workers import free_port
from tests.support.programs import find_postgresql

USER = "pascal"  # of the database
_WAIT_S = 60


class PostgresqlServer:
    """A server that listens on 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        programs = find_postgresql()
        assert programs is not None
        self.port = free_port()
        self._programs = programs
        self._folder = folder
        self._owner = _unprivileged()
        self._numbers = count()
        if self._owner is not None:
            os.chown(folder, self._owner.pw_uid, self._owner.pw_gid)
        self._run(
            *("initdb", "--no-sync", "--auth=trust", f"--username={USER}"),
            *("--encoding=UTF8", "--locale=C", "-D", f"{folder}/data"),
        )

    def start(self) -> None:
        """Start it, and return when it answers."""
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=60 "
            f"-c unix_socket_directories={self._folder}"
        )
        self._control("start", "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Stop it; ``immediate`` is like a crash."""
        self._control("stop", "-m", mode)

    def pause(self) -> None:
        """Let it answer no more, without closing a connection: all of its processes stop."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End a pause."""
        self._signal(signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return (self._folder / "data" / "postmaster.pid").exists()

    def new_database(self) -> str:
        """Create an empty database; return its URL."""
        name = f"pascal_{next(self._numbers)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, name)
        return self.url(name)

    def url(self, database: str) -> str:
        """The URL of a database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def _control(self, command: str, *arguments: str) -> None:
        data, log = f"{self._folder}/data", f"{self._folder}/log"
        self._run(
            "pg_ctl", command, "-s", "-w", "-t", str(_WAIT_S), "-D", data, "-l", log, *arguments
        )

    def _run(self, program: str, *arguments: str) -> None:
        user: dict[str, Any] = {}
        if self._owner is not None:
            user = {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}
        done = subprocess.run(
            [self._programs / program, *arguments],
            cwd=self._folder,
            # Not a pipe: the server would hold it open.
            stdout=(self._folder / "output").open("ab"),
            stderr=subprocess.STDOUT,
            check=False,
            timeout=2 * _WAIT_S,
            **user,
        )
        assert done.returncode == 0, (self._folder / "output").read_text()

    def _signal(self, number: int) -> None:
        main = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        for process in (main, *map(int, children)):
            os.kill(process, number)


@contextmanager
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A server that runs."""
    folder = Path(tempfile.mkdtemp(prefix="pascal-postgresql-"))
    try:
        server = PostgresqlServer(folder)
        server.start()
        try:
            yield server
        finally:
            if server.is_running:
                server.go_on()
                server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom the server runs as: it refuses to run as root."""
    if getpass.getuser() != "root" and os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("no user to run PostgreSQL as")
