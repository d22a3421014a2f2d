"""Airflow's metadata database: PostgreSQL where there is one, since SQLite lets only one process write."""

import os
import secrets
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import psycopg2
import sqlalchemy

_HOST, _PORT = os.environ.get("PGHOST", "127.0.0.1"), os.environ.get("PGPORT", "5432")
_USER = os.environ.get("PGUSER", "postgres")


@cache
def postgres_is_here() -> bool:
    """Return whether the PostgreSQL that libpq's variables name, or this machine's, lets us in."""
    try:
        _administer("SELECT 1")
    except psycopg2.OperationalError:
        return False
    return True


class Database:
    """A database that is there.

    :param url: SQLAlchemy's.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = sqlalchemy.create_engine(url, pool_pre_ping=True)

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sqlalchemy.text(query), values)]

    def tables(self) -> Iterator[tuple[str, str]]:
        """Yield each table's name and all that it holds, as text."""
        for name in sqlalchemy.inspect(self._engine).get_table_names():
            yield name, "\n".join(map(_readable, self.rows(f'SELECT * FROM "{name}"')))

    def close(self) -> None:
        self._engine.dispose()


class NewDatabase(Database):
    """A new database.

    :param home: where SQLite's file goes.
    """

    def __init__(self, home: Path) -> None:
        self._name = f"cfbilling_test_{secrets.token_hex(6)}"
        if postgres_is_here():
            _administer(f'CREATE DATABASE "{self._name}"')
            super().__init__(f"postgresql+psycopg2://{_USER}@{_HOST}:{_PORT}/{self._name}")
        else:
            super().__init__(f"sqlite:///{home}/airflow.db")
            self.rows("PRAGMA journal_mode=WAL")  # or a reader keeps others from writing

    def drop(self) -> None:
        self.close()
        if postgres_is_here():
            _administer(f'DROP DATABASE "{self._name}" WITH (FORCE)')


def _readable(row: tuple[Any, ...]) -> str:
    values = (bytes(value) if isinstance(value, memoryview) else value for value in row)
    return " ".join(
        value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values
    )


def _administer(statement: str) -> None:
    place = {"host": _HOST, "port": _PORT, "user": _USER, "dbname": "postgres"}
    with closing(psycopg2.connect(**place, connect_timeout=3)) as connection:
        connection.autocommit = True  # databases are not made in a transaction
        with connection.cursor() as cursor:
            cursor.execute(statement)
