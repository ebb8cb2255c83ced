"""A real PostgreSQL server in a directory of its own, started and stopped by the test."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from support.ports import free_port
from support.wait import wait_until

if TYPE_CHECKING:
    from support.pki import Pki


class PostgresServer:
    """One server with TLS on a loopback port; it refuses to run as root, so root starts it as another user.

    Attributes:
        port: Where it listens; each connection over TCP needs a password, those over the socket none.
        directory: Of its socket and its files.
    """

    def __init__(self, pki: Pki) -> None:
        self._programs = _programs()
        self._user = _user()
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="openclaw-postgresql-"))
        files = pki.server(name="postgresql")
        for source, name in ((files.certificate, "server.pem"), (files.key, "server.key")):
            shutil.copy(source, self.directory / name)
            (self.directory / name).chmod(0o600)
        if self._user:
            for path in (self.directory, *self.directory.iterdir()):
                shutil.chown(path, self._user)
        self._process: subprocess.Popen[bytes] | None = None
        self._run(
            "initdb", "-D", "base", "-U", "owner", "-E", "UTF8", "--locale=C", "--no-sync", "-A", "trust"
        )
        access = "local all all trust\nhost all all all scram-sha-256\n"
        (self.directory / "base" / "pg_hba.conf").write_text(access)

    @property
    def owner(self) -> str:
        """The connection string of the owner, over the socket."""
        return f"host={self.directory} port={self.port} dbname=postgres user=owner"

    def dsn(self, *, port: int | None = None, user: str = "reader") -> str:
        """Return a connection string over TCP."""
        return f"host=127.0.0.1 port={port or self.port} dbname=postgres user={user}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": str(self.directory / "server.pem"),
            "ssl_key_file": str(self.directory / "server.key"),
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        self._process = self._popen("postgres", "-D", "base", *options)
        wait_until(self._answers, what=f"PostgreSQL ({self.directory})")

    def stop(self) -> None:
        """Shut the server down, if it runs; sessions are ended."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(120)
            self._process = None

    def close(self) -> None:
        """Stop the server and remove its files."""
        self.stop()
        shutil.rmtree(self.directory)

    def execute(self, *statements: str) -> None:
        """Run statements as the owner, each committed by itself."""
        with psycopg.connect(self.owner, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "log").read_text()[-2000:]
        try:
            psycopg.connect(self.owner, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        process = self._popen(program, *arguments)
        assert process.wait(180) == 0, (self.directory / "log").read_text()[-2000:]

    def _popen(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        other: dict[str, Any] = {}
        if self._user:
            other = {"user": self._user, "group": pwd.getpwnam(self._user).pw_gid, "extra_groups": ()}
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                (self._programs / program, *arguments),
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(self.directory)},
                stdout=log,
                stderr=log,
                **other,
            )


def _programs() -> Path:
    """Return the folder of the newest installed server, or skip the test."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.skip("initdb and postgres are not installed (Debian package postgresql)")


def _user() -> str:
    """Return the user that root runs the server as; nobody else needs one."""
    if os.geteuid() != 0:
        return ""
    users = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in users else "nobody"
