"""The sandbox's books, in SQLite: what was charged, and what was requested."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, fields, replace
from pathlib import Path

from airflow_provider_cfbilling.sandbox.models import Account, Charge, LedgerInvoice, SeenRequest

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (id TEXT PRIMARY KEY, settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS invoices (
    id TEXT PRIMARY KEY, account_id TEXT NOT NULL,
    amount_cents INTEGER NOT NULL, amount_due_cents INTEGER NOT NULL,
    status TEXT NOT NULL, origin TEXT NOT NULL,
    created INTEGER NOT NULL, visible_at REAL NOT NULL, settles_at REAL, settles_as TEXT,
    description TEXT, without TEXT NOT NULL, status_visible_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS charges (
    number INTEGER PRIMARY KEY, account_id TEXT NOT NULL, amount_cents INTEGER NOT NULL, at REAL NOT NULL,
    invoice_id TEXT NOT NULL UNIQUE REFERENCES invoices (id)
);
CREATE TABLE IF NOT EXISTS requests (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL,
    query TEXT NOT NULL, operation TEXT, status INTEGER, token TEXT, fault TEXT
);
"""


class Ledger:
    """Accounts, invoices, charges and requests. Thread-safe.

    :param path: of the database; by default a temporary file that goes with the ledger.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._lock = threading.RLock()
        # An empty name is SQLite's own temporary file. Statements commit one by one unless in transaction().
        self._db = sqlite3.connect(str(path or ""), check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        # WAL without fsync: a killed process loses nothing, only a power cut could.
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;" + _SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def clear(self) -> None:
        """Forget everything."""
        with self.transaction():
            for table in ("charges", "invoices", "requests", "accounts"):
                self._run(f"DELETE FROM {table}")  # noqa: S608 - the names above

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and no other thread in between."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _run(self, statement: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()

    # accounts

    def accounts(self) -> dict[str, Account]:
        rows = self._run("SELECT id, settings FROM accounts ORDER BY rowid")
        return {row["id"]: Account(**json.loads(row["settings"])) for row in rows}

    def account(self, account_id: str) -> Account | None:
        return self.accounts().get(account_id)

    def save_account(self, account_id: str, account: Account) -> None:
        self._run(
            "INSERT INTO accounts (id, settings) VALUES (?, ?)"
            " ON CONFLICT (id) DO UPDATE SET settings = excluded.settings",
            account_id,
            json.dumps(asdict(account)),
        )

    # invoices and charges

    def add_invoice(self, invoice: LedgerInvoice) -> None:
        marks = ", ".join("?" for _ in fields(invoice))
        self._run(f"INSERT INTO invoices VALUES ({marks})", *astuple(invoice))  # noqa: S608 - question marks

    def add_charge(self, invoice: LedgerInvoice, at: float) -> None:
        """Record that an invoice's amount was charged at that Unix time."""
        self._run(
            "INSERT INTO charges (account_id, amount_cents, at, invoice_id) VALUES (?, ?, ?, ?)",
            invoice.account_id,
            invoice.amount_cents,
            at,
            invoice.id,
        )

    def invoices(self, account_id: str | None = None) -> list[LedgerInvoice]:
        """Newest first."""
        rows = self._run(
            "SELECT * FROM invoices WHERE ? IN (account_id, '') ORDER BY created DESC, rowid DESC",
            account_id or "",
        )
        return [LedgerInvoice(**row) for row in rows]

    def charges(self, account_id: str | None = None) -> list[Charge]:
        """Oldest first."""
        rows = self._run(
            "SELECT charges.account_id, charges.amount_cents, amount_due_cents, at, invoice_id, origin,"
            " status FROM charges JOIN invoices ON invoices.id = invoice_id"
            " WHERE ? IN (charges.account_id, '') ORDER BY charges.number",
            account_id or "",
        )
        return [Charge(**row) for row in rows]

    def settle(self, now: float) -> None:
        """Give every invoice whose time has come its final status, and paid credit to its account."""
        due = "status = 'open' AND settles_at <= ?"
        with self.transaction():
            rows = self._run(f"SELECT account_id, amount_cents, settles_as FROM invoices WHERE {due}", now)  # noqa: S608
            self._run(f"UPDATE invoices SET status = settles_as WHERE {due}", now)  # noqa: S608
            for row in rows:
                if row["settles_as"] == "paid":
                    self._credit(row["account_id"], row["amount_cents"])

    def _credit(self, account_id: str, amount_cents: int) -> None:
        account = self.accounts()[account_id]
        balance_cents = round(account.balance_cents + amount_cents, 6)
        self.save_account(account_id, replace(account, balance_cents=balance_cents))

    # requests

    def add_request(self, request: SeenRequest) -> int:
        """Record a request's arrival; the number is for :meth:`responded`."""
        with self._lock:
            cursor = self._db.execute(
                "INSERT INTO requests (at, method, path, query, operation, status, token, fault)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                astuple(request),
            )
            return int(cursor.lastrowid or 0)

    def responded(self, number: int, status: int) -> None:
        self._run("UPDATE requests SET status = ? WHERE number = ?", status, number)

    def requests(self, operation: str | None = None, latest: int = -1) -> list[SeenRequest]:
        """Oldest first; with ``latest`` only that many of the newest."""
        rows = self._run(
            "SELECT at, method, path, query, operation, status, token, fault FROM requests"
            " WHERE ? IN (operation, '') ORDER BY number DESC LIMIT ?",
            operation or "",
            latest,
        )
        return [SeenRequest(**row) for row in reversed(rows)]
