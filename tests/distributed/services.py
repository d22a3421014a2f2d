"""What the workers have in common: a PostgreSQL of the test's own, and a corner of this machine's Redis."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg2
import redis

from tests.real_airflow.deployment import free_port

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379").rstrip("/")

_REDIS_DATABASES = 16
_TIMEOUT = 60.0


def what_is_missing() -> str | None:
    """Return what this machine lacks and how to come by it, in a sentence; None: nothing."""
    if _server_program("postgres") is None:
        return (
            "PostgreSQL's server programs (initdb, postgres) are needed, on the PATH or below "
            "/usr/lib/postgresql: `apt-get install postgresql` brings them."
        )
    if os.geteuid() == 0 and not _is_user("postgres"):
        return "PostgreSQL does not run as root: add a user named postgres, or be another user."
    try:
        with closing(redis.Redis.from_url(REDIS_URL, socket_timeout=3)) as client:
            client.ping()
    except redis.RedisError as error:
        return (
            f"Redis is needed at {REDIS_URL} ({error}): start it with `redis-server --daemonize yes`, "
            "or name another in REDIS_URL."
        )
    return None


class Postgres:
    """A PostgreSQL server that lives as long as its ``with`` block, with an empty database ``airflow``."""

    def __init__(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="cfbilling-postgres-"))
        self._port = free_port()
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._home, self._user)
        self._server: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql+psycopg2://postgres@127.0.0.1:{self._port}/airflow"

    def __enter__(self) -> Self:
        try:
            self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync")
            self.start()
            with closing(self._connected()) as connection:
                connection.autocommit = True  # databases are not made in a transaction
                connection.cursor().execute("CREATE DATABASE airflow")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start(self) -> None:
        """Start the server; returns when it can be used."""
        # Nothing here outlives a power cut, and so nothing needs to wait for a disk.
        settings = ("fsync=off", "max_connections=300", "unix_socket_directories=", f"port={self._port}")
        with (self._home / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [str(_server_program("postgres")), "-D", str(self._data), *_each("-c", settings)],
                user=self._user,
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _TIMEOUT
        while not self._can_be_used():
            assert self._server.poll() is None, (self._home / "server.log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not come up"
            time.sleep(0.05)

    def crash(self) -> None:
        """Stop the server at once, as ``pg_ctl stop -m immediate`` does: connections are cut."""
        assert self._server
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(_TIMEOUT)

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(_server_program(program)), "-D", str(self._data), *arguments]
        done = subprocess.run(command, user=self._user, cwd=self._home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def _connected(self) -> psycopg2.extensions.connection:
        return psycopg2.connect(
            host="127.0.0.1", port=self._port, user="postgres", dbname="postgres", connect_timeout=3
        )

    def _can_be_used(self) -> bool:
        with suppress(psycopg2.OperationalError), closing(self._connected()):
            return True
        return False

    def _end(self) -> None:
        if self._server and self._server.poll() is None:
            self.crash()
        shutil.rmtree(self._home, ignore_errors=True)


class Broker:
    """A database of this machine's Redis that is not in use, and a prefix of its own for all keys."""

    def __init__(self) -> None:
        self.prefix = f"cfbilling-test-{secrets.token_hex(6)}:"
        self.url = next(url for url in self._urls() if self._is_empty(url))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing(redis.Redis.from_url(self.url)) as client:
            for key in client.scan_iter(f"{self.prefix}*"):
                client.delete(key)

    def overdue(self, seconds: float) -> int:
        """Return how many messages were delivered longer ago than that, and are not acknowledged."""
        with closing(redis.Redis.from_url(self.url)) as client:
            return int(client.zcount(f"{self.prefix}unacked_index", 0, time.time() - seconds))

    @staticmethod
    def _urls() -> list[str]:
        return [f"{REDIS_URL}/{number}" for number in reversed(range(_REDIS_DATABASES))]

    @staticmethod
    def _is_empty(url: str) -> bool:
        with closing(redis.Redis.from_url(url)) as client:
            return client.dbsize() == 0


def _server_program(name: str) -> Path | None:
    """Return where one of PostgreSQL's server programs is: Debian keeps them off the PATH."""
    if found := shutil.which(name):
        return Path(found)
    return max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), default=None)


def _is_user(name: str) -> bool:
    return any(user.pw_name == name for user in pwd.getpwall())


def _each(option: str, values: tuple[str, ...]) -> list[str]:
    return [word for value in values for word in (option, value)]
