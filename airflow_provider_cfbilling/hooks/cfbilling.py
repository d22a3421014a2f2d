"""From an Airflow connection to a client of the AI Gateway Billing API."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    BaseHook,
    Connection,
)

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingError, CfBillingInvalidRequestError
from airflow_provider_cfbilling.api.models import (
    CreditBalance,
    InvoiceHistory,
    InvoicePreview,
    SpendingLimit,
    Topup,
    TopupConfig,
    TopupLimits,
    TopupStatus,
    UsageHistory,
)
from airflow_provider_cfbilling.api.money import dollars
from airflow_provider_cfbilling.api.settings import DEFAULT_BASE_URL, Settings
from airflow_provider_cfbilling.charging.errors import BalanceAboveThreshold, ChargeDeadlinePassed
from airflow_provider_cfbilling.get_provider_info import get_provider_info

_NUMBERS: dict[str, type[int] | type[float]] = {
    "connect_timeout": float,
    "read_timeout": float,
    "max_attempts": int,
}
_EXTRAS = ("email", *_NUMBERS)


class CfBillingHook(BaseHook):
    """Reads Cloudflare's AI Gateway Billing API, and tops up credits, through an Airflow connection.

    Where it fails, every method raises a :class:`~airflow_provider_cfbilling.api.errors.CfBillingError`.

    :param cfbilling_conn_id: the Airflow connection: ``login`` is the account id, ``password`` the API
        token, ``host`` the base URL where it is not Cloudflare's.
    :param account_id: the account to use in place of the connection's.
    """

    conn_name_attr = "cfbilling_conn_id"
    default_conn_name = "cfbilling_default"
    conn_type = "cfbilling"
    hook_name = "Cloudflare AI Gateway Billing"

    def __init__(
        self, cfbilling_conn_id: str = default_conn_name, account_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.cfbilling_conn_id = cfbilling_conn_id
        self.account_id = account_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the connection form for Airflow before 3.2; later ones read it from the provider info."""
        info: dict[str, Any] = get_provider_info()
        (connection_type,) = info["connection-types"]
        form: dict[str, Any] = connection_type["ui-field-behaviour"]
        return {**form, "hidden_fields": form["hidden-fields"]}

    def get_conn(self) -> CfBillingClient:
        """Return the client of the hook's account."""
        return self._client

    def get_client(self, account_id: str | None) -> CfBillingClient:
        """Return the client of another account of the same connection; None: of the hook's account."""
        client = self.get_conn()
        return client if account_id in (None, client.account_id) else client.for_account(account_id)

    @cached_property
    def _client(self) -> CfBillingClient:
        connection = self.get_connection(self.cfbilling_conn_id)
        return CfBillingClient(settings_from_connection(connection, self.account_id))

    def create_topup(self, amount_cents: int, payment_method_id: str | None = None) -> Topup:
        """Charge a card, now: two calls are two charges. See :meth:`CfBillingClient.create_topup`.

        In a task use ``CfBillingCreateTopupOperator``, which checks first and waits for the result.

        :param amount_cents: at least 1000 ($10.00).
        :param payment_method_id: Stripe payment method to charge instead of the account's default.
        """
        return self.get_conn().create_topup(amount_cents, payment_method_id)

    def get_topup_status(self, payment_intent_id: str) -> TopupStatus:
        """Tell whether a top-up has settled. Needs the permission "AI Gateway Write"."""
        return self.get_conn().get_topup_status(payment_intent_id)

    def get_topup_config(self) -> TopupConfig:
        """Return the automatic top-up's configuration and whether it works."""
        return self.get_conn().get_topup_config()

    def get_topup_limits(self) -> TopupLimits:
        """Return the smallest and the largest top-up of this account, wherever Cloudflare tells them."""
        return self.get_conn().get_topup_limits()

    def get_credit_balance(self) -> CreditBalance:
        """Return the balance, and whether a default payment method exists."""
        return self.get_conn().get_credit_balance()

    def get_invoice_history(self, type: Literal["auto", "manual", "all"] = "all") -> InvoiceHistory:
        """Return past invoices: automatic top-ups, manual ones, or all."""
        return self.get_conn().get_invoice_history(type)

    def get_invoice_preview(self) -> InvoicePreview:
        """Return the upcoming invoice."""
        return self.get_conn().get_invoice_preview()

    def get_usage_history(
        self,
        window: Literal["day", "hour"],
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> UsageHistory:
        """Return what was spent per ``window``, in cents, from ``start`` until ``end`` (with a time zone)."""
        return self.get_conn().get_usage_history(window, start, end)

    def get_spending_limit(self) -> SpendingLimit:
        """Return the account's legacy spending limit."""
        return self.get_conn().get_spending_limit()

    def test_connection(self) -> tuple[bool, str]:
        """Read the balance once and say what was found, or what is wrong."""
        try:
            connection = self.get_connection(self.cfbilling_conn_id)
            settings = settings_from_connection(connection, self.account_id)
            with closing(CfBillingClient(replace(settings, max_attempts=1))) as client:
                balance = client.get_credit_balance()
        except CfBillingError as error:
            return False, str(error)
        return True, (
            f"Connected. Balance: {dollars(balance.balance_cents)}. "
            f"Auto top-up: {_described(balance.topup_config)}."
        )


def settings_from_connection(connection: Connection, account_id: str | None = None) -> Settings:
    """Return what the client needs, or refuse the connection and name the field that is wrong.

    :raises CfBillingInvalidRequestError: before any request.
    """
    try:
        extra = _extra(connection)
        _refuse_unused(connection)
        return Settings(
            account_id=connection.login or "" if account_id is None else account_id,
            secret=connection.password or "",
            email=extra.get("email") or None,
            base_url=connection.host or DEFAULT_BASE_URL,
            **{name: _number(name, extra[name]) for name in _NUMBERS if extra.get(name) not in (None, "")},
        )
    except CfBillingInvalidRequestError as error:
        raise CfBillingInvalidRequestError(
            f"Connection {connection.conn_id!r} cannot be used (login is the account id, password the API "
            f"token, host the API base URL): {error.message}"
        ) from None


def _extra(connection: Connection) -> dict[str, Any]:
    # Not extra_dejson: it talks to the task's supervisor to mask secrets, and none is allowed here.
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise CfBillingInvalidRequestError("extra is not a JSON object.")
    unknown = [name for name in extra if name not in _EXTRAS]
    if unknown:
        raise CfBillingInvalidRequestError(
            f"extra holds {', '.join(map(repr, unknown))}; it may hold only {', '.join(_EXTRAS)}."
        )
    return extra


def _refuse_unused(connection: Connection) -> None:
    for name in ("port", "schema"):
        if getattr(connection, name):
            raise CfBillingInvalidRequestError(
                f"{name} is not used: write the whole base URL into host, such as {DEFAULT_BASE_URL} "
                "(in a connection URI percent-encoded)."
            )


def _number(name: str, value: Any) -> Any:
    kind = _NUMBERS[name]
    try:
        if isinstance(value, bool) or (kind is int and float(value) != int(value)):
            raise ValueError
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        what = "a whole number" if kind is int else "a number of seconds"
        raise CfBillingInvalidRequestError(f"{name} must be {what}; got {value!r:.60}.") from None


def _described(config: TopupConfig) -> str:
    match config.state:
        case "disabled":
            return f"switched off by Cloudflare ({config.disabled_reason})"
        case "failing":
            return f"failing ({config.error})"
        case "active":
            return f"active, {dollars(config.amount_cents)} below {dollars(config.threshold_cents)}"
    return "not set up"


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn what the API half raises into what Airflow acts on: fail at once if a retry cannot help."""
    try:
        yield
    except BalanceAboveThreshold as reason:
        raise AirflowSkipException(str(reason)) from None
    except ChargeDeadlinePassed as reason:
        raise AirflowSkipException(
            f"{reason} A Dag run of catch-up or backfill is not charged for if it comes more than "
            "max_run_age seconds after its time, or after its next one was due; with max_run_age=None it is."
        ) from None
    except CfBillingError as error:
        raise (AirflowException if error.retryable else AirflowFailException)(str(error)) from error
