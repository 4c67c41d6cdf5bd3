"""A PostgreSQL server of the tests' own: a private cluster in a temporary folder, on a free port of this machine alone."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

USER, PASSWORD = "multilora", "swordfish"
ABSENT = "initdb and pg_ctl were not found: install PostgreSQL's server"


def programs() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``, the newest if there are several."""
    if found := shutil.which("initdb"):
        folders = [Path(found).parent]
    else:
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: [int(n) for n in p.parent.name.split(".")], reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


@dataclass(frozen=True)
class Server:
    """A cluster.

    Attributes:
        programs: the folder of the server's programs.
        folder: holds the cluster.
        port: it listens there, on the loopback interface.
    """

    programs: Path
    folder: Path
    port: int

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-w", "-t", "60", "-l", str(self.folder / "log"), "-o", settings, "start")

    def stop(self) -> None:
        """Stop as a crash does: connections break, nothing is tidied up."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def restart(self) -> None:
        """Stop as a crash does, and start."""
        self.stop()
        self.start()

    def database(self) -> str:
        """The address, with a password, of a fresh database."""
        name = f"db_{secrets.token_hex(6)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, database: str, port: int | None = None) -> str:
        """The address of a database, perhaps through another port."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def make(self) -> None:
        """Make the cluster."""
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run("initdb", "-N", "-E", "UTF8", "--locale=C", "-A", "scram-sha-256", "-U", USER, f"--pwfile={secret}")

    def _run(self, program: str, *words: str) -> None:
        command = [str(self.programs / program), "-D", str(self.folder / "data"), *words]
        with (self.folder / "output").open("w+") as output:  # no pipe: the server would keep it open
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder, **_as_other())
            output.seek(0)
            assert done.returncode == 0, f"{program} {words[-1]}: {output.read()}"


@contextmanager
def running() -> Iterator[Server]:
    """A server that runs during the block."""
    place = programs()
    assert place is not None, ABSENT
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        if other := _as_other():
            os.chown(folder, pwd.getpwnam(other["user"]).pw_uid, -1)
        server = Server(place, folder, free_port())
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _as_other() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    return {"user": next(name for name in ("postgres", "nobody") if name in names), "extra_groups": []}
