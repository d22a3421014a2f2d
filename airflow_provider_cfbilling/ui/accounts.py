"""Reads what the page shows: for all viewers of an api-server's process one request per kind and minute."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails
from airflow.models import Connection
from airflow.providers.common.compat.sdk import conf
from airflow.utils.session import create_session
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingError
from airflow_provider_cfbilling.api.models import (
    CreditBalance,
    Invoice,
    InvoiceHistory,
    UsageHistory,
)
from airflow_provider_cfbilling.api.settings import Settings
from airflow_provider_cfbilling.errors import described_error
from airflow_provider_cfbilling.forecast import Runway, read_usage, runway, spent_by_day
from airflow_provider_cfbilling.hooks.cfbilling import CfBillingHook, settings_from_connection
from airflow_provider_cfbilling.triggers.single_flight import PollResult, shared_poll, single_flight

log = logging.getLogger(__name__)

DAYS = 30
_MAX_AGE_SECONDS = 60.0
# How long a page waits for Cloudflare. What comes later is shown by the next one.
_PATIENCE_SECONDS = 5.0
# A read whose page has stopped waiting must not hold its thread for the minute that a task may take.
_READ_TIMEOUT_SECONDS = 10.0
# How long a connection of the environment or a secrets backend is used before it is read again.
_CONNECTION_SECONDS = 10.0


@dataclass(frozen=True)
class AccountCredits:
    """What is known of one connection's account.

    :param balance: None if it was never read.
    :param runway: None if balance or usage were never read.
    :param spend: cents by day, in UTC, of the last 30 days; empty if usage was never read.
    :param manual: invoices of top-ups by people and Dags, newest first; at most one page of the history.
    :param automatic: those of the automatic top-up.
    :param complete_since: the history has older invoices than these, created before this; None if not.
    :param days: those that the page shows, oldest first.
    :param age_seconds: of the oldest of what is shown; None if there is nothing.
    :param problem: why something could not be read, or the connection not be used.
    """

    conn_id: str
    balance: CreditBalance | None = None
    runway: Runway | None = None
    spend: Mapping[date, float] = field(default_factory=dict)
    manual: tuple[Invoice, ...] = ()
    automatic: tuple[Invoice, ...] = ()
    complete_since: datetime | None = None
    days: tuple[date, ...] = ()
    age_seconds: float | None = None
    problem: str | None = None

    @property
    def invoices(self) -> tuple[Invoice, ...]:
        """All of them, newest first."""
        dated = [invoice for invoice in (*self.manual, *self.automatic) if invoice.created_at]
        return tuple(sorted(dated, key=_created_at, reverse=True))


def _created_at(invoice: Invoice) -> float:
    return invoice.created_at.timestamp() if invoice.created_at else 0.0


# Each names, as the key of a shared poll, one kind of request.


def get_balance(client: CfBillingClient) -> CreditBalance:
    return client.get_credit_balance()


def get_usage(client: CfBillingClient) -> UsageHistory:
    return read_usage(client, DAYS)


def get_manual_invoices(client: CfBillingClient) -> InvoiceHistory:
    return client.get_invoice_history("manual")


def get_automatic_invoices(client: CfBillingClient) -> InvoiceHistory:
    return client.get_invoice_history("auto")


_QUERIES = (get_balance, get_usage, get_manual_invoices, get_automatic_invoices)


class _LastRead:
    """What was read last of a connection's account, for as long as account and credentials stay the same."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._results: dict[Callable[..., Any], PollResult] = {}
        self._account: AccountCredits | None = None

    def add(self, query: Callable[..., Any], result: PollResult) -> None:
        if self._results.get(query) is not result:
            self._results[query] = result
            self._account = None

    def account(self, conn_id: str, problem: str | None) -> AccountCredits:
        """Return all of it. Sums over 700 hours of usage are made once a read, not once a viewer."""
        if self._account is None:
            self._account = _account(conn_id, {query: each.value for query, each in self._results.items()})
        age = max((result.age for result in self._results.values()), default=None)
        return replace(self._account, age_seconds=age, problem=problem)


_last_read: dict[str, _LastRead] = {}


def may_read_connections(user: Any) -> bool:
    """Return whether the user may read connections at all."""
    return bool(get_auth_manager().is_authorized_connection(method="GET", user=user))


async def readable_connections(user: Any) -> list[Connection]:
    """Return the connections to show to a user: stored ones, and those that have been named.

    As in a task, secrets backends and the environment go before what is stored.
    """
    found = {connection.conn_id: connection for connection in await run_in_threadpool(_stored)}
    # Such a connection belongs to no team: with teams, everybody would see it.
    if not conf.getboolean("core", "multi_team", fallback=False):
        named = await asyncio.gather(*map(_from_secrets, set(_named())))
        found |= {connection.conn_id: connection for connection in named if connection}
    return await run_in_threadpool(
        lambda: [each for each in found.values() if _may_read_connection(each, user)]
    )


def _stored() -> list[Connection]:
    with create_session() as session:
        rows = session.scalars(
            select(Connection).where(Connection.conn_type == CfBillingHook.conn_type)
        ).all()
        session.expunge_all()
    return list(rows)


def _named() -> Iterator[str]:
    """Secrets backends cannot be listed."""
    yield CfBillingHook.default_conn_name
    for name, value in os.environ.items():
        if name.startswith("AIRFLOW_CONN_") and CfBillingHook.conn_type in value:
            yield name.removeprefix("AIRFLOW_CONN_").lower()
    for conn_id in conf.get("cfbilling", "page_connections", fallback="").split(","):
        if conn_id.strip():
            yield conn_id.strip()


async def _from_secrets(conn_id: str) -> Connection | None:
    async def find() -> Connection | None:
        return await run_in_threadpool(Connection.get_connection_from_secrets, conn_id)

    key = ("page connection", conn_id)
    reading = single_flight().result(key, find, max_age=_CONNECTION_SECONDS)
    try:
        result = await asyncio.wait_for(reading, _PATIENCE_SECONDS)
    except TimeoutError:
        return None
    connection: Connection | None = result.value  # an error: there is none
    return connection if connection and connection.conn_type == CfBillingHook.conn_type else None


def _may_read_connection(connection: Connection, user: Any) -> bool:
    team = getattr(connection, "team_name", None)  # Airflow 3.2 and later
    details = ConnectionDetails(conn_id=connection.conn_id, **({"team_name": team} if team else {}))
    return bool(get_auth_manager().is_authorized_connection(method="GET", user=user, details=details))


async def read_accounts(connections: list[Connection]) -> list[AccountCredits]:
    """Read all accounts at once; none takes longer than five seconds."""
    return list(await asyncio.gather(*map(_read_account, connections)))


async def _read_account(connection: Connection) -> AccountCredits:
    try:
        settings = await run_in_threadpool(settings_from_connection, connection)
    except Exception as error:  # of one connection, which must not hide the others
        return AccountCredits(connection.conn_id, problem=_shown_problem(error))
    settings = replace(settings, read_timeout=min(settings.read_timeout, _READ_TIMEOUT_SECONDS))
    known = _last_read.get(connection.conn_id)
    if known is None or known.settings != settings:
        known = _last_read[connection.conn_id] = _LastRead(settings)
    problems = await asyncio.gather(*(_read_credits(settings, query, known) for query in _QUERIES))
    return known.account(connection.conn_id, next(filter(None, problems), None))


async def _read_credits(settings: Settings, query: Callable[..., Any], last: _LastRead) -> str | None:
    """Read, and keep what was read. Return what is wrong, if so."""
    try:
        polled = await asyncio.wait_for(
            shared_poll(settings, query, max_age=_MAX_AGE_SECONDS), _PATIENCE_SECONDS
        )
    except TimeoutError:
        return f"Cloudflare has not responded within {_PATIENCE_SECONDS:g} s."
    if polled.error:
        return _shown_problem(polled.error)
    last.add(query, polled)
    return None


def _shown_problem(error: Exception) -> str:
    return str(error) if isinstance(error, CfBillingError) else described_error(error)


def _account(conn_id: str, read: Mapping[Callable[..., Any], Any]) -> AccountCredits:
    balance, usage = read.get(get_balance), read.get(get_usage)
    manual, automatic = read.get(get_manual_invoices), read.get(get_automatic_invoices)
    today = (usage.server_time if usage else datetime.now(UTC)).astimezone(UTC).date()
    days = tuple(today - timedelta(days=back) for back in reversed(range(DAYS)))
    return AccountCredits(
        conn_id,
        balance=balance,
        runway=runway(balance.balance_cents, usage.history, usage.server_time) if balance and usage else None,
        spend=spent_by_day(usage.history, days) if usage else {},
        manual=manual.invoices if manual else (),
        automatic=automatic.invoices if automatic else (),
        complete_since=max(filter(None, map(_complete_since, (manual, automatic))), default=None),
        days=days,
    )


def _complete_since(history: InvoiceHistory | None) -> datetime | None:
    if history is None or not history.pagination.has_more:
        return None
    return min((each.created_at for each in history.invoices if each.created_at), default=None)
